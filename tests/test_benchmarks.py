"""Short runs of the benchmarks, which test that they work, not how fast anything is."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["benchmarks --quick --only small", "benchmarks.codec --quick --rounds 1"])
def test_a_short_run_prints_its_table(command: str):
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "images/s" in done.stdout
