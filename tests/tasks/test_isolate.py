"""The careful lane does what the fast one does, and outlives what that does not."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tasks.child import BASE_BYTES, BYTES_PER_PIXEL, Orders
from tasks.errors import DarkroomError, ErrorCode, ImageError
from tasks.imaging import transform
from tasks.isolate import Isolated
from tasks.recipe import Recipe, Rules
from tests.poisoned import met, poison, poisoned_environment
from tests.tasks.reference import encoded, jpeg, picture

SMALL = Recipe(width=16, height=12)
QUICK = Rules(max_image_seconds=1, max_pixels=1_000_000)
MB = 1 << 20
GOOD = jpeg(picture())


def children_left():
    """The careful lane's children of this process, which has started other processes, too."""
    return [child for child in psutil.Process().children() if "tasks.child" in child.cmdline()]


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Makes children fall for poison; the file in which they note what they met."""
    path = tmp_path / "met"
    for name, value in poisoned_environment(path).items():
        monkeypatch.setenv(name, value)
    return path


@pytest.fixture
def isolated():
    """A careful lane of little patience and memory; nothing may be left of it."""
    with Isolated(SMALL, QUICK, memory=200 * MB) as lane:
        yield lane
    assert children_left() == []


def failure(lane, data):
    with pytest.raises(ImageError) as caught:
        lane(data)
    return caught.value


def pid_of(lane):
    return lane._child._process.pid


def untimed(made):
    return dataclasses.replace(made, decode_ms=0, resize_ms=0, encode_ms=0)


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_the_same_bytes_and_facts_as_in_the_fast_lane(image_format):
    recipe = Recipe(width=40, height=40, fit="contain", format=image_format)
    images = [encoded(picture(), name) for name in ("JPEG", "PNG", "WEBP", "TIFF", "GIF")]
    broken = [b"", b"<html>", GOOD[:600], GOOD[:-400], encoded(picture(2000, 1000), "PNG")]
    with Isolated(recipe, QUICK) as lane:
        for data in images:
            assert untimed(lane(data)) == untimed(transform(data, recipe, QUICK.max_pixels))
        child = pid_of(lane)
        for data in broken:
            with pytest.raises(ImageError) as expected:
                transform(data, recipe, QUICK.max_pixels)
            found = failure(lane, data)
            assert (found.code, found.message) == (expected.value.code, expected.value.message)
            assert found.facts == expected.value.facts
        assert pid_of(lane) == child, "a bad image is no reason for another child"


def test_what_brings_a_decoder_down_costs_only_itself(isolated, log):
    expected = {
        "crash": (ErrorCode.DECODE_CRASH, "the decoder crashed (SIGSEGV)"),
        "abort": (ErrorCode.DECODE_CRASH, "the decoder crashed (SIGABRT)"),
        "leave": (ErrorCode.DECODE_CRASH, "the decoder crashed (exit code 3)"),
        "babble": (ErrorCode.DECODE_CRASH, "the decoder's process talks nonsense"),
        "eat": (ErrorCode.DECODE_MEMORY, "decoding takes more than 200 MB of memory"),
        "overflow": (ErrorCode.DECODE_MEMORY, "decoding takes more than 200 MB of memory"),
        "spin": (ErrorCode.DECODE_TIMEOUT, "decoding did not end within max_image_seconds = 1"),
        "grind": (ErrorCode.DECODE_TIMEOUT, "decoding did not end within max_image_seconds = 1"),
        "sleep": (ErrorCode.DECODE_TIMEOUT, "decoding did not end within max_image_seconds = 1"),
    }
    found = {kind: failure(isolated, poison(kind)) for kind in expected}
    assert {kind: (error.code, error.message) for kind, error in found.items()} == expected
    assert isolated(GOOD).data == transform(GOOD, SMALL, QUICK.max_pixels).data
    [ate] = [int(what.split()[1]) for what, _, _ in met(log) if what.startswith("ate")]
    assert 100 <= ate <= 200, "megabytes that could be touched"


def test_only_a_fresh_child_is_believed(isolated, log):
    isolated(poison("break_later"))
    broken = pid_of(isolated)
    assert isolated(GOOD).data == transform(GOOD, SMALL, QUICK.max_pixels).data
    assert pid_of(isolated) != broken, "it was another image's doing that this one fell"
    assert failure(isolated, poison("crash")).code is ErrorCode.DECODE_CRASH
    children = [pid for what, where, pid in met(log) if (what, where) == ("crash", "child")]
    assert len(set(children)) == len(children) == 2


def test_a_child_that_is_killed_from_outside_is_believed_the_second_time(isolated, log):
    isolated(GOOD)
    assert isolated(poison("fall_once")).data == transform(poison("fall_once"), SMALL, QUICK.max_pixels).data
    error = failure(isolated, poison("fall"))
    assert (error.code, error.message) == (
        ErrorCode.DECODE_MEMORY,
        "the decoder's process was killed, most likely for its memory",
    )
    children = {kind: [pid for what, _, pid in met(log) if what == kind] for kind in ("fall", "fall_once")}
    assert {kind: len(set(pids)) for kind, pids in children.items()} == {"fall": 3, "fall_once": 2}


def test_what_an_image_may_take_depends_on_what_its_header_promises(log):
    orders = Orders(recipe=SMALL, max_pixels=10**9, seconds=60, memory=None)
    assert [orders.seconds_for(pixels) for pixels in (0, 25_000_000, 250_000_000)] == [60, 60, 600]
    assert orders.memory_for(0, 0) == BASE_BYTES
    assert orders.memory_for(1_000_000, 0) == BASE_BYTES + 1_000_000 * BYTES_PER_PIXEL
    assert orders.model_copy(update={"memory": MB}).memory_for(1_000_000, 0) == MB
    bomb = jpeg(picture(1000, 800)) + b"poison:eat"
    with Isolated(SMALL, QUICK) as lane:
        message = failure(lane, bomb).message
    allowed = (BASE_BYTES + 800_000 * BYTES_PER_PIXEL + 4 * len(bomb)) // MB
    assert message == f"decoding takes more than {allowed} MB of memory"
    [ate] = [int(what.split()[1]) for what, _, _ in met(log) if what.startswith("ate")]
    assert 0.8 * allowed <= ate <= allowed


def test_signals_to_all_of_a_runs_processes_are_not_an_images_doing(isolated):
    isolated(GOOD)
    child = pid_of(isolated)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(child, number)
    isolated(GOOD)
    assert pid_of(isolated) == child


def test_a_child_gets_no_credentials(isolated, monkeypatch):
    monkeypatch.setenv("PREFECT_API_KEY", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    isolated(GOOD)
    assert "secret" not in psutil.Process(pid_of(isolated)).environ().values()


@pytest.mark.parametrize("kind", ["spin", "sleep"])
def test_a_child_ends_with_its_worker_whatever_it_is_at(kind, log):
    code = (
        "import sys\n"
        "from tasks.isolate import Isolated\n"
        "from tasks.recipe import Recipe, Rules\n"
        "Isolated(Recipe(), Rules(max_image_seconds=600))(sys.stdin.buffer.read())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as worker:
        worker.stdin.write(poison(kind))
        worker.stdin.close()
        while not met(log):
            assert worker.poll() is None
            time.sleep(0.01)
        [(_, _, pid)] = met(log)
        child = psutil.Process(int(pid))
        worker.kill()
    child.wait(30)


def test_that_no_child_can_be_started_is_not_the_images_fault(monkeypatch, tmp_path):
    for program, reason in (("/bin/false", "it ended without a word"), (str(tmp_path / "none"), "No such file")):
        monkeypatch.setattr(sys, "executable", program)
        with Isolated(SMALL, QUICK) as lane, pytest.raises(DarkroomError, match=f"careful lane.*{reason}"):
            lane(GOOD)
    (tmp_path / "python").write_text("#!/bin/sh\necho 'No module named tasks' >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with Isolated(SMALL, QUICK) as lane, pytest.raises(DarkroomError, match="No module named tasks"):
        lane(GOOD)
    assert children_left() == []
