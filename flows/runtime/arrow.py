"""Arrow without pandas."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Any

import pyarrow as pa


class _NoPandas(MetaPathFinder):
    """Makes imports of pandas fail as if it were not installed."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name=name)


def hide_pandas() -> None:
    """Keep Arrow from importing pandas, which costs each process 0.4 s of CPU time and 60 MB.

    Where pandas is installed, Arrow imports it once a Python list becomes an array, to find out whether the list is one
    of pandas' types. It looks for pandas only once, here in vain; a later `to_pandas` imports pandas nevertheless. For
    processes that run nothing but Darkroom's code.
    """
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)
