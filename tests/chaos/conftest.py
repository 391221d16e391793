"""Fixtures of the chaos test."""

from tests.flows.conftest import api, prefect_home

__all__ = ["api", "prefect_home"]
