"""Only `tasks/storage` opens, lists, renames, examines or deletes files of a source or destination."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MODULES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("flows", "tasks")
    for path in (ROOT / folder).rglob("*.py")
    if path.parent != ROOT / "tasks/storage"
)

BANNED = {
    "os": "access chmod chown fdopen fsync link listdir lstat makedirs mkdir open readlink remove removedirs rename "
    "renames replace rmdir scandir stat statvfs symlink sync truncate unlink utime walk",
    "os.path": "exists getmtime getsize isdir isfile islink lexists realpath samefile",
    "shutil": "copy copy2 copyfile copytree disk_usage move rmtree",
}
PATH_METHODS = (
    "chmod exists glob hardlink_to is_dir is_file is_symlink iterdir lstat mkdir open read_bytes read_text readlink "
    "rename resolve rglob rmdir stat symlink_to touch unlink write_bytes write_text"
)

ALLOWED = {
    "flows/cli/session.py": {".is_file", ".read_text"},  # Prefect's own settings
    "flows/cli/streams.py": {"open", "os.open"},  # the null device
    "flows/runtime/main_guard.py": {".read_bytes"},  # the calling script
    "flows/runtime/machine.py": {"os.access", ".mkdir"},  # the working directory, and Prefect's home
    "flows/runtime/versions.py": {".read_bytes", ".rglob"},  # Darkroom's own modules
    "flows/runtime/workspace.py": {"shutil.rmtree"},  # a temporary folder of its own
    "tasks/dataset/integrity.py": {".open"},  # the local file that a table is built in
    "tasks/dataset/lease.py": {".read_text", "os.stat"},  # /proc, for the identity of this process
    "tasks/imaging/formats/jpeg.py": {".open"},  # an encoded image, of bytes; so in the next two
    "tasks/imaging/sheet.py": {".open"},
    "tasks/imaging/transform.py": {".open"},
    "tasks/worker/codec_process.py": {".read_text"},  # /proc/self/statm
    "tasks/worker/codec_server.py": {".write_text", "os.open"},  # /proc/self/oom_score_adj and /dev/null
}
"""What each module may use, for files that belong to no source or destination."""


def uses(text):
    """Yield every call in a module's text that touches files, as written there."""
    for node in ast.walk(ast.parse(text)):
        function = node.func if isinstance(node, ast.Call) else None
        if isinstance(function, ast.Name) and function.id == "open":
            yield "open"
        elif isinstance(function, ast.Attribute):
            owner, name = ast.unparse(function.value), function.attr
            if name in BANNED.get(owner, "").split():
                yield f"{owner}.{name}"
            elif owner not in BANNED and not owner.endswith("store") and name in PATH_METHODS.split():
                yield f".{name}"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_touches_no_files_of_a_source_or_destination(module):
    assert set(uses((ROOT / module).read_text())) == ALLOWED.get(module, set())


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("open(path)", "open"),
        ("Path(place.root, 'x').write_text('')", ".write_text"),
        ("os.replace(a, b)", "os.replace"),
        ("x = [each for each in folder.iterdir() if os.path.isdir(each)]", ".iterdir os.path.isdir"),
        ("shutil.rmtree(folder)", "shutil.rmtree"),
        (
            "workspace.store.open(path); self._store.open(path); exists(store, path); text.replace(a, b)",
            "",
        ),
    ],
)
def test_what_touches_files_is_recognised(code, found):
    assert sorted(uses(code)) == found.split()
