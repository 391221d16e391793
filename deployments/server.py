"""`prefect server start` for a machine whose Prefect database is SQLite's: its transactions wait for each other."""

from __future__ import annotations

import sys

from prefect.cli import app

from darkroom.flows.runtime.database import let_transactions_wait

if __name__ == "__main__":
    let_transactions_wait()
    sys.argv[1:1] = ["server", "start"]
    app()
