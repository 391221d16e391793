"""The SQLite database of a local Prefect server."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}

URL_VARIABLES = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")
SQLITE = "sqlite+aiosqlite:///"


def prefect_home() -> Path:
    """Return the folder in which Prefect keeps its files."""
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()


def locked_database() -> Path | None:
    """Return the path of Prefect's database if another connection has locked it for writing."""
    path = _path()
    if path is None:
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=0)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.Error as error:
        # The server reports all other errors. The low byte of the code is the primary error.
        return path if getattr(error, "sqlite_errorcode", 0) & 0xFF in LOCKED else None
    return None


def let_transactions_wait() -> None:
    """Make the transactions of a Prefect server in this process wait for each other, up to a minute.

    Prefect begins most of them as DEFERRED. SQLite refuses the first write of such a transaction at once if another one
    has written since it began to read (https://sqlite.org/isolation.html): the server logs "database is locked" and
    answers 503, to most requests if eight clients ask at a time. An IMMEDIATE one waits when it begins, instead.
    """
    from prefect.server.database.configurations import AioSqliteConfiguration

    begin = AioSqliteConfiguration.begin_transaction

    def begin_immediate(configuration: Any, session: Any, **_options: bool) -> Any:
        return begin(configuration, session, with_for_update=True)

    AioSqliteConfiguration.begin_transaction = begin_immediate  # type: ignore[method-assign, assignment]


def _path() -> Path | None:
    """Return the path of Prefect's database; None if it isn't SQLite's."""
    url = next((os.environ[name] for name in URL_VARIABLES if os.environ.get(name)), None)
    if url is None:
        return prefect_home() / "prefect.db"
    return Path(url.removeprefix(SQLITE).partition("?")[0]) if url.startswith(SQLITE) else None
