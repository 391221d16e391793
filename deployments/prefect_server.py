"""`prefect server start`, with automations that miss nothing on SQLite: `python -m` it.

The transactions in which Prefect 3.8 counts events for its automations begin by reading. SQLite refuses such a one at
once, whatever its timeout, if another writes when it wants to (https://www.sqlite.org/lang_transaction.html, "BEGIN
DEFERRED"; PrefectHQ/prefect#18934). An event that is refused four times, which takes milliseconds, is dropped: somebody
is not told of a failed run, or a quarter of an hour late. Here they begin by waiting for their turn to write.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prefect.cli import app
from prefect.server.database import PrefectDBInterface, db_injector
from prefect.server.events import triggers
from sqlalchemy.ext.asyncio import AsyncSession


@asynccontextmanager
@db_injector
async def _session(db: PrefectDBInterface, begin_transaction: bool = False) -> AsyncIterator[AsyncSession]:
    async with db.session_context(begin_transaction=begin_transaction, with_for_update=begin_transaction) as session:
        yield session


def main() -> None:
    """Run the server; options are those of `prefect server start`."""
    triggers.automations_session = _session
    sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
    app()


if __name__ == "__main__":
    main()
