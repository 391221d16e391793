"""The contents of files: read all below a folder, or change one bit."""

from pathlib import Path


def files(folder: Path) -> dict[str, bytes]:
    """Return the contents of every file below a folder, by path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip_bit(file: Path, at: int = -20) -> None:
    """Flip a bit of the byte at an offset.

    The file is replaced, not written in place: other files may be links to the same bytes.
    """
    data = bytearray(file.read_bytes())
    data[at] ^= 0x10
    file.unlink()
    file.write_bytes(data)
