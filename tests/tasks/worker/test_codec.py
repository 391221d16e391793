"""A codec process does what its functions do here, and outlives nothing that it need not."""

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import psutil
import pytest

from darkroom.tasks.errors import DarkroomError, ErrorCode, ImageError
from darkroom.tasks.imaging import Inspected, Transformed
from darkroom.tasks.imaging.limits import BASE_BYTES, BYTES_PER_PIXEL
from darkroom.tasks.imaging.transform import transform
from darkroom.tasks.settings import Recipe
from darkroom.tasks.worker import codec as codec_module
from darkroom.tasks.worker.codec import Codec, end_server, start_server
from darkroom.tasks.worker.orders import Orders
from darkroom.tasks.worker.shared_batch import IMAGES, SIZE, Operation, SharedBatch
from tests.poisoned import met, poison
from tests.tasks.imaging.reference import encoded, jpeg, picture

SMALL = Recipe(width=16, height=12)
MB = 1 << 20
QUICK = Orders(recipe=SMALL, max_pixels=1_000_000, max_image_seconds=1, memory=200 * MB)
GOOD = jpeg(picture())


@pytest.fixture
def codec(log):  # noqa: ARG001 - no codec process of an earlier test serves here
    with closing(Codec()) as codec:
        yield codec


def transformed(codec, *images, orders=QUICK):
    """What comes of images, their outputs copied."""
    return [
        dataclasses.replace(answer, data=bytes(answer.data)) if isinstance(answer, Transformed) else answer
        for answer in codec.run(Operation.TRANSFORM, orders, images)
    ]


def failure(codec, data, orders=QUICK):
    [error] = transformed(codec, data, orders=orders)
    assert isinstance(error, ImageError)
    return error


def expected(data=GOOD, recipe=SMALL):
    return transform(data, recipe, 10**9).data


def pid_of_process():
    """The number of the only codec process."""
    [server] = [
        child for child in psutil.Process().children() if "darkroom.tasks.worker.codec_server" in child.cmdline()
    ]
    [process] = [child for child in server.children() if child.status() != psutil.STATUS_ZOMBIE]
    return process.pid


def untimed(made):
    return dataclasses.replace(made, data=bytes(made.data), decode_ms=0, resize_ms=0, encode_ms=0)


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_the_same_bytes_and_facts_as_without_a_process(codec, image_format):
    recipe = Recipe(width=40, height=40, fit="contain", format=image_format)
    orders = QUICK.model_copy(update={"recipe": recipe})
    images = [encoded(picture(), name) for name in ("JPEG", "PNG", "WEBP", "TIFF", "GIF")]
    broken = [b"", b"<html>", GOOD[:600], GOOD[:-400], encoded(picture(2000, 1000), "PNG")]
    made = transformed(codec, *images, orders=orders)
    assert [untimed(each) for each in made] == [untimed(transform(data, recipe, 1_000_000)) for data in images]
    process = pid_of_process()
    for data in broken:
        with pytest.raises(ImageError) as caught:
            transform(data, recipe, QUICK.max_pixels)
        found = failure(codec, data, orders)
        assert (found.code, found.message) == (caught.value.code, caught.value.message)
        assert found.facts == caught.value.facts
    assert pid_of_process() == process, "a bad image is no reason for another process"


def test_other_operations(codec):
    [inspected, cut] = codec.run(Operation.INSPECT, QUICK, [GOOD, GOOD[:-300]])
    assert inspected == Inspected("jpeg", 120, 80, 3)
    assert cut.code is ErrorCode.DECODE_TRUNCATED
    assert list(codec.run(Operation.DESCRIBE, QUICK, [GOOD, b"?"])) == ["jpeg, 120 × 80 pixels", "no image"]
    orders = QUICK.model_copy(update={"side": 30})
    [shown] = codec.run(Operation.THUMBNAIL, orders, [GOOD])
    assert (shown.width, shown.height, len(shown.pixels)) == (30, 20, 1800)


def test_what_brings_a_process_down_costs_only_itself(codec, log):
    too_long = (ErrorCode.DECODE_TIMEOUT, "decoding did not end within max_image_seconds = 1")
    too_much = (ErrorCode.DECODE_MEMORY, "decoding takes more than 200 MB of memory")
    nonsense = (ErrorCode.DECODE_CRASH, "the codec process answered nonsense")
    kinds = {
        "crash": (ErrorCode.DECODE_CRASH, "the decoder crashed (SIGSEGV)"),
        "abort": (ErrorCode.DECODE_CRASH, "the decoder crashed (SIGABRT)"),
        "leave": (ErrorCode.DECODE_CRASH, "the decoder crashed (exit code 3)"),
        "lie": nonsense,
        "wander": nonsense,
        "eat": too_much,
        "overflow": too_much,
        "spin": too_long,
        "grind": too_long,
        "sleep": too_long,
    }
    found = {kind: failure(codec, poison(kind)) for kind in kinds}
    assert {kind: (error.code, error.message) for kind, error in found.items()} == kinds
    assert [made.data for made in transformed(codec, GOOD)] == [expected()]
    [ate] = {int(what.split()[1]) for what, _ in met(log) if what.startswith("ate")}
    assert 100 <= ate <= 200, "megabytes that could be touched"


def test_of_a_batch_everything_but_the_bad_image_is_made_and_nothing_twice(codec, log):
    def image(seed):
        return jpeg(picture(40, 30, seed)) + b"poison:nothing"

    batch = [image(0), poison("crash"), image(2), poison("sleep"), image(4), poison("eat"), image(6), image(7)]
    others = [image(seed) for seed in range(8, 12)]
    answers = transformed(codec, *batch, *others)
    codes = [answer.code.value if isinstance(answer, ImageError) else "" for answer in answers]
    assert codes == ["", "decode.crash", "", "decode.timeout", "", "decode.memory", "", "", "", "", "", ""]
    made = [answer.data for answer in answers if isinstance(answer, Transformed)]
    assert made == [expected(image(seed)) for seed in (0, 2, 4, 6, 7, 8, 9, 10, 11)]
    assert [what for what, _ in met(log) if not what.startswith("ate")] == ["crash", "crash", "sleep", "eat", "eat"]


def test_messages_that_nobody_has_asked_for_change_nothing(codec):
    images = [jpeg(picture(40, 30, 1)), poison("babble"), jpeg(picture(40, 30, 2)), poison("babble")]
    for _ in range(2):
        assert [made.data for made in transformed(codec, *images)] == [expected(data) for data in images]


def test_only_a_fresh_process_is_believed(codec, log):
    transformed(codec, poison("break_later"))
    broken = pid_of_process()
    assert [made.data for made in transformed(codec, GOOD)] == [expected()]
    assert pid_of_process() != broken, "it was another image's doing that this one fell"
    assert failure(codec, poison("crash")).code is ErrorCode.DECODE_CRASH
    processes = [pid for what, pid in met(log) if what == "crash"]
    assert len(set(processes)) == len(processes) == 2


def test_a_process_that_is_killed_from_outside_is_believed_the_second_time(codec, log):
    transformed(codec, GOOD)
    assert [made.data for made in transformed(codec, poison("fall_once"))] == [expected(poison("fall_once"))]
    error = failure(codec, poison("fall"))
    assert (error.code, error.message) == (
        ErrorCode.DECODE_MEMORY,
        "the codec process was killed, most likely for its memory",
    )
    processes = {kind: [pid for what, pid in met(log) if what == kind] for kind in ("fall", "fall_once")}
    assert {kind: len(set(pids)) for kind, pids in processes.items()} == {"fall": 3, "fall_once": 2}


def test_a_process_that_is_killed_while_it_has_nothing_to_do_is_replaced(codec):
    transformed(codec, GOOD)
    psutil.Process(pid_of_process()).kill()
    assert [made.data for made in transformed(codec, GOOD, GOOD)] == [expected()] * 2


def test_a_server_that_is_gone_is_replaced(codec):
    transformed(codec, GOOD)
    [server] = [
        child for child in psutil.Process().children() if "darkroom.tasks.worker.codec_server" in child.cmdline()
    ]
    server.kill()
    assert [made.data for made in transformed(codec, GOOD)] == [expected()]


def test_what_an_image_may_take_depends_on_what_its_header_promises(codec, log):
    orders = Orders(recipe=SMALL, max_pixels=10**9, max_image_seconds=60)
    assert [orders.seconds_for(pixels) for pixels in (0, 25_000_000, 250_000_000)] == [60, 60, 600]
    assert orders.memory_for(0, 0) == BASE_BYTES
    assert orders.memory_for(1_000_000, 0) == BASE_BYTES + 1_000_000 * BYTES_PER_PIXEL
    assert orders.model_copy(update={"memory": MB}).memory_for(1_000_000, 0) == MB
    bomb = poison("eat")
    message = failure(codec, bomb, orders).message
    allowed = (BASE_BYTES + 40 * 30 * BYTES_PER_PIXEL + 4 * len(bomb)) // MB
    assert message == f"decoding takes more than {allowed} MB of memory"
    [ate] = {int(what.split()[1]) for what, _ in met(log) if what.startswith("ate")}
    assert 0.8 * allowed <= ate <= allowed


def test_images_and_outputs_larger_than_the_memory_of_a_batch(codec):
    large = jpeg(picture()) + os.urandom(SIZE + 1)
    orders = Orders(recipe=Recipe(width=3000, height=2500, format="png"), max_pixels=10**8, max_image_seconds=60)
    noise = encoded(picture(3000, 2500), "PNG", compress_level=1)
    first, second, third = transformed(codec, noise, large, noise, orders=orders)
    assert len(first.data) * 3 > SIZE
    assert first.data == third.data
    assert hashlib.sha256(second.data).digest() == hashlib.sha256(expected(large, orders.recipe)).digest()
    for _ in range(3):
        assert [made.data for made in transformed(codec, GOOD)] == [expected()]


def test_slow_images_have_each_their_own_time(codec):
    slow = QUICK.model_copy(update={"max_image_seconds": 0.7})  # by the clock 2.1 s, where each takes 1.5
    for _ in range(4):
        [made] = transformed(codec, poison("nap"), orders=slow)
        assert isinstance(made, Transformed)


def test_what_was_left_unfinished_is_no_answer_to_what_comes_next(codec, monkeypatch):
    answers = codec.run(Operation.DESCRIBE, QUICK, [GOOD] * IMAGES)
    next(answers)
    answers.close()
    assert [made.data for made in transformed(codec, GOOD)] == [expected()]
    with monkeypatch.context() as patch:
        patch.setattr(codec_module._Process, "wait", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(codec.run(Operation.DESCRIBE, QUICK, [b""] * IMAGES))
    assert [made.data for made in transformed(codec, GOOD)] == [expected()]


def test_memory_that_a_process_has_grown_as_it_died_can_be_used_again():
    batch = SharedBatch.create()
    os.ftruncate(batch.descriptor, 3 * SIZE)
    batch.reset(b"orders")
    batch.place(2 * SIZE)[-1] = 1
    batch.keep(2 * SIZE)
    batch.trim()
    batch.reset(b"orders")
    assert batch.place(2 * SIZE)[-1] == 0, "given back"


def test_many_images_share_the_memory_of_one_batch(codec):
    images = [jpeg(picture(40, 30, seed)) for seed in range(3 * IMAGES + 1)]
    assert [made.data for made in transformed(codec, *images)] == [expected(data) for data in images]
    assert len(codec._free) == 1


def test_signals_to_all_of_a_runs_processes_are_not_an_images_doing(codec):
    transformed(codec, GOOD)
    process = pid_of_process()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(process, number)
        os.kill(psutil.Process(process).ppid(), number)
    transformed(codec, GOOD)
    assert pid_of_process() == process


def test_a_codec_process_gets_no_credentials_and_loads_nothing_but_codecs(codec, monkeypatch):
    monkeypatch.setenv("PREFECT_API_KEY", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    end_server()
    transformed(codec, GOOD)
    process = psutil.Process(pid_of_process())
    assert "secret" not in process.environ().values()
    libraries = {os.path.basename(mapped.path) for mapped in process.memory_maps()}
    assert any(name.startswith("cv2") for name in libraries)
    assert not [name for name in libraries if name.startswith(("libarrow", "_duckdb", "libduckdb"))]
    held = {os.path.realpath(f"/proc/{process.pid}/fd/{number}") for number in os.listdir(f"/proc/{process.pid}/fd")}
    assert len([name for name in held if "socket" in name]) == 1, "its channel, and nobody else's"


def test_a_worker_loads_no_codec_and_a_codec_process_nothing_of_a_worker():
    code = "import sys, {}; print(*[name for name in {!r} if name in sys.modules])"
    codecs, others = ("cv2", "PIL", "simplejpeg"), ("prefect", "distributed", "dask", "pyarrow", "duckdb")
    for imported, banned in (
        ("darkroom.tasks.resize, darkroom.tasks.compare", codecs),
        ("darkroom.tasks.worker.codec_server", others),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code.format(imported, banned)], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "", imported


@pytest.mark.parametrize("kind", ["spin", "sleep"])
def test_a_codec_process_ends_with_its_worker_whatever_it_is_at(kind, log):
    code = (
        "import sys\n"
        "from darkroom.tasks.worker.codec import Codec\n"
        "from darkroom.tasks.worker.orders import Orders\n"
        "orders = Orders(max_pixels=10**9, max_image_seconds=600)\n"
        "list(Codec().run(0, orders, [sys.stdin.buffer.read()]))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as worker:
        worker.stdin.write(poison(kind))
        worker.stdin.close()
        while not met(log):
            assert worker.poll() is None
            time.sleep(0.01)
        [(_, pid)] = met(log)
        process = psutil.Process(int(pid))
        server = process.parent()
        worker.kill()
    psutil.wait_procs([process, server], 30)
    assert not process.is_running() and not server.is_running()


@pytest.mark.usefixtures("log")
def test_workers_that_are_forked_share_the_server():
    server = start_server()
    reader, writer = os.pipe()
    worker = os.fork()
    if not worker:
        with closing(Codec()) as codec:
            os.write(writer, hashlib.sha256(transformed(codec, GOOD)[0].data).digest())
            os._exit(0 if codec_module._Server.current is server else 1)
    assert os.waitpid(worker, 0)[1] == 0
    assert os.read(reader, 100) == hashlib.sha256(expected()).digest()
    os.close(reader)
    os.close(writer)


@pytest.mark.usefixtures("log")
def test_that_no_process_can_be_started_is_not_the_images_fault(monkeypatch, tmp_path):
    for program, reason in (("/bin/false", ""), (str(tmp_path / "none"), "No such file")):
        monkeypatch.setattr(sys, "executable", program)
        end_server()
        with closing(Codec()) as codec, pytest.raises(DarkroomError, match=f"No codec process.*{reason}"):
            transformed(codec, GOOD)
    (tmp_path / "python").write_text("#!/bin/sh\necho 'No module named tasks' >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    end_server()
    with closing(Codec()) as codec, pytest.raises(DarkroomError, match="No module named tasks"):
        transformed(codec, GOOD)
