"""The exception of a signal reaches the caller, whatever code it interrupts."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import BaseModel, model_serializer

from darkroom.flows.runtime.signals import ECHO_SECONDS, Ending, deferred, interruptible, raise_lost, sigterm_exits


@pytest.fixture(autouse=True)
def default_handlers() -> Iterator[None]:
    """Reset the handlers: below `nohup`, SIGHUP is ignored."""
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
def test_a_signals_exception_survives_a_library_that_replaces_it(number: signal.Signals, raised: type[BaseException]):
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with sigterm_exits(), pytest.raises(Exception, match="Error calling function"):
        Interrupted(number=number).model_dump()
    with sigterm_exits(), pytest.raises(raised), interruptible():
        Interrupted(number=number).model_dump()

    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


class Finalized:
    """Gets a signal where Python only prints what its handler raises."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_whose_exception_was_lost_is_raised_by_the_next_check(
    number: signal.Signals, raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
):
    printed: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    with interruption(on_second=pytest.fail), sigterm_exits(), interruptible():
        raise_lost()
        Finalized(number)  # finalized at once
        with pytest.raises(raised):
            raise_lost()
    raise_lost()
    assert not printed


@contextmanager
def interruption(on_second: Callable[[], object]) -> Iterator[None]:
    """Handle Ctrl-C as the command line does."""
    before = signal.signal(signal.SIGINT, Ending(on_second=on_second))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_that_is_sent_twice_at_once_counts_once(number: signal.Signals, raised: type[BaseException]):
    cleaned = False
    with interruption(on_second=pytest.fail), sigterm_exits(), pytest.raises(raised):
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)  # as `timeout` does: to the process, and to its group
            cleaned = True
    assert cleaned


def test_the_first_interrupt_is_announced_once():
    announced: list[bool] = []
    ending = Ending(on_first=lambda: announced.append(True))
    assert ending.accept()
    ending.reset()
    assert ending.accept()
    assert announced == [True]


def test_a_second_interrupt_does_not_wait():
    seconds = []
    with interruption(on_second=lambda: seconds.append(True)):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert not seconds
        time.sleep(2 * ECHO_SECONDS)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert seconds


def test_a_deferred_signal_is_not_taken_for_a_second_one():
    with interruption(on_second=pytest.fail), pytest.raises(KeyboardInterrupt), deferred():
        signal.raise_signal(signal.SIGINT)
        time.sleep(2 * ECHO_SECONDS)


def test_ignored_signals_stay_ignored():
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
