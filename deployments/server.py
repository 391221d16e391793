"""`prefect server start`, changed where Darkroom needs it.

Transactions of an SQLite database wait for each other, and automations see the events of scheduled runs at once.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Start the server; arguments are those of `prefect server start`."""
    os.environ.setdefault("PREFECT_SERVER_EVENTS_CAUSAL_ORDERING", "darkroom.deployments.event_order")
    from prefect.cli import app  # reads the settings as it is imported

    from darkroom.flows.runtime.database import let_transactions_wait

    let_transactions_wait()
    sys.argv[1:1] = ["server", "start"]
    app()


if __name__ == "__main__":
    main()
