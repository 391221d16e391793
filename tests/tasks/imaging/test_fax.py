import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from darkroom.tasks.imaging.fax import has_damaged_lines
from tests.tasks.imaging.reference import encoded

BITS = np.random.default_rng(7).integers(0, 2, (40, 60)).astype(bool)
FINE = encoded(BITS, "TIFF", compression="group4")
DAMAGED = FINE[:60] + b"\xff" * 30 + FINE[90:]


def test_only_damage_is_reported_and_nothing_is_printed(capfd):
    descriptors = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    assert has_damaged_lines(DAMAGED) and not has_damaged_lines(FINE) and not has_damaged_lines(b"no TIFF")
    assert capfd.readouterr() == ("", "")
    os.write(2, b"as before")
    assert capfd.readouterr().err == "as before"
    assert descriptors is None or set(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full"])
def test_stderr_may_be_closed_or_full(redirected, tmp_path):
    (tmp_path / "damaged.tif").write_bytes(DAMAGED)
    program = f"""
from darkroom.tasks.imaging.fax import has_damaged_lines
data = open({str(tmp_path / "damaged.tif")!r}, "rb").read()
print(has_damaged_lines(data), has_damaged_lines(data))
"""
    (tmp_path / "program.py").write_text(program)
    command = f"{sys.executable} {tmp_path / 'program.py'} {redirected}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout == "True True\n"


def test_the_logging_level_is_restored_and_has_no_effect():
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        assert has_damaged_lines(DAMAGED)
        assert cv2.utils.logging.getLogLevel() == cv2.utils.logging.LOG_LEVEL_SILENT
    finally:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_WARNING)
