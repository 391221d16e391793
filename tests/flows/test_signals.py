"""What a signal's handler raises comes through, whatever is being done."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, model_serializer

from flows.signals import deferred, interruptible, sigterm_exits


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """No signal is ignored, as SIGHUP would be below `nohup`."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Interrupted(BaseModel):
    """Gets a signal while it is being serialized."""

    number: int

    @model_serializer
    def serialize(self) -> dict[str, Any]:
        signal.raise_signal(self.number)
        return {}


@pytest.mark.parametrize(
    ("number", "raised"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit), (signal.SIGHUP, SystemExit)],
)
def test_a_signal_comes_through_a_library_that_makes_another_exception_of_it(
    number: signal.Signals, raised: type[BaseException]
):
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with sigterm_exits():
        with pytest.raises(Exception, match="Error calling function"):
            Interrupted(number=number).model_dump()
        with pytest.raises(raised), interruptible():
            Interrupted(number=number).model_dump()

    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with sigterm_exits(), interruptible():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_exceptions_are_left_alone():
    with pytest.raises(ZeroDivisionError), interruptible():
        _ = 1 / 0


def test_signals_wait_while_they_are_deferred():
    reached = []
    with sigterm_exits(), pytest.raises(SystemExit), deferred():
        signal.raise_signal(signal.SIGTERM)
        reached.append(True)
    assert reached
