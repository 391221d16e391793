"""Only a Prefect database that another process has locked is reported as locked."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from harness import Api, refused

from darkroom.flows.runtime.database import locked_database, prefect_home


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    """Prefect's database with another connection to it."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    for name in ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL"):
        monkeypatch.delenv(name, raising=False)
    with closing(sqlite3.connect(tmp_path / "prefect.db")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE runs (id)")
        connection.commit()
        yield connection


@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_a_locked_database_is_found_while_it_is_locked(lock: str, database: sqlite3.Connection, tmp_path: Path):
    assert locked_database() is None
    database.execute(lock)
    assert locked_database() == tmp_path / "prefect.db"
    database.rollback()
    assert locked_database() is None


def test_the_database_may_lie_elsewhere(database: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    database.execute("BEGIN EXCLUSIVE")
    monkeypatch.setenv("PREFECT_HOME", "/nowhere")
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", f"sqlite+aiosqlite:///{tmp_path}/prefect.db?x=1")
    assert locked_database() == tmp_path / "prefect.db"
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql+asyncpg://db/prefect")
    assert locked_database() is None


def test_no_database_is_made_and_a_damaged_one_is_not_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    assert locked_database() is None
    assert not list(tmp_path.iterdir())
    (tmp_path / "prefect.db").write_bytes(b"x" * 5000)
    assert locked_database() is None


@pytest.mark.parametrize("value", ["", None])
def test_without_a_setting_the_home_is_that_of_the_user(value: str | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.setenv("PREFECT_HOME", value) if value is not None else monkeypatch.delenv(
        "PREFECT_HOME", raising=False
    )
    assert prefect_home() == Path("/home/x/.prefect")


def test_requests_wait_for_each_others_transactions(api: Api):
    assert refused(api.url) == []
