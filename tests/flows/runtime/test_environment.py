"""Environment variables are set for child processes, and restored."""

from __future__ import annotations

import os

import pytest

from darkroom.flows.runtime.environment import environment


def test_variables_are_set_and_unset_in_the_block_and_restored(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DARKROOM_TEST", "before")
    monkeypatch.setenv("DARKROOM_GONE", "before")
    with environment({"DARKROOM_TEST": "within", "DARKROOM_NEW": "1", "DARKROOM_GONE": None}):
        assert (os.environ["DARKROOM_TEST"], os.environ["DARKROOM_NEW"]) == ("within", "1")
        assert "DARKROOM_GONE" not in os.environ
    assert (os.environ["DARKROOM_TEST"], os.environ["DARKROOM_GONE"]) == ("before", "before")
    assert "DARKROOM_NEW" not in os.environ
