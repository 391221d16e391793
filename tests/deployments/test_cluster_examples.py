"""The examples of clusters are valid settings."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from harness import CHECKOUT

from darkroom import Compute
from darkroom.tasks.preflight import check_compute

EXAMPLES = sorted((CHECKOUT / "deployments/clusters").glob("*.json"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_valid(file: Path):
    compute = Compute(**json.loads(file.read_text()))
    assert compute.cluster_class
    if find_spec(compute.cluster_class.partition(".")[0]):
        check_compute(compute)
    assert file.name in (CHECKOUT / "docs/clusters.md").read_text()


def test_there_are_examples():
    assert len(EXAMPLES) == 3
