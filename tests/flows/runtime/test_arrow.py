from __future__ import annotations

import subprocess
import sys

import pytest

LISTS_BECOME_ARRAYS = "import sys, pyarrow as pa; {} pa.array([1]); print('pandas' in sys.modules); {}"
HIDE = "from darkroom.flows.runtime.arrow import hide_pandas; hide_pandas();"
USE = "print(len(pa.table({'a': [1, 2]}).to_pandas()))"


def output(code: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


def test_lists_become_arrays_without_pandas():
    pytest.importorskip("pandas")
    assert output(LISTS_BECOME_ARRAYS.format("", "")) == ["True"], "Arrow no longer imports pandas: delete the module"
    assert output(LISTS_BECOME_ARRAYS.format(HIDE, "")) == ["False"]


def test_pandas_can_be_used_afterwards():
    pytest.importorskip("pandas")
    assert output(LISTS_BECOME_ARRAYS.format(HIDE, USE)) == ["False", "2"]
