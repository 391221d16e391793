"""Check for `if __name__ == "__main__":` in scripts that start workers: each worker imports the script again."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import FrameType

from darkroom.tasks.errors import SettingsError


def check_main_guard() -> None:
    """Raise `SettingsError` if workers can't import the script, or would call this again.

    That is if the script comes from standard input, or its own code calls this outside `if __name__ == "__main__":`.
    """
    main = sys.modules["__main__"]
    spec, file = main.__spec__, getattr(main, "__file__", None)
    # multiprocessing imports neither interactive input nor the __main__.py of a package.
    if file is None or (spec and spec.name.rpartition(".")[2] == "__main__"):
        return
    if file == "<stdin>":
        raise SettingsError("This script comes from standard input, where worker processes can't import it: save it.")
    line = _line_of(vars(main), sys._getframe())
    if line is not None and not _is_guarded(Path(file), line):
        raise SettingsError(
            f"{file}, line {line}: put this call below 'if __name__ == \"__main__\":'. Worker processes import the "
            "script, and would call it again."
        )


def _line_of(module: dict[str, object], frame: FrameType | None) -> int | None:
    """Return the line of the module's top-level code that leads to a frame; None if there is none."""
    while frame and not (frame.f_globals is module and frame.f_code.co_name == "<module>"):
        frame = frame.f_back
    return frame and frame.f_lineno


def _is_guarded(script: Path, line: int) -> bool:
    """Return whether a line lies in an `if` that tests `__name__`; True if the script can't be read."""
    try:
        statements = ast.parse(script.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return True
    return any(
        isinstance(statement, ast.If)
        and statement.lineno <= line <= (statement.end_lineno or line)
        and any(isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(statement.test))
        for statement in statements
    )
