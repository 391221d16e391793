"""When an image ends or breaks its codec process, only that image fails."""

import hashlib
import os

import pytest

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging import Transformed
from darkroom.tasks.settings import Recipe
from darkroom.tasks.worker import codec_handle
from darkroom.tasks.worker.orders import Orders
from darkroom.tasks.worker.shared_batch import BATCH_IMAGES, SIZE, Operation
from tests.poisoned import logged, poison
from tests.tasks.imaging.reference import encoded, jpeg, picture
from tests.tasks.worker.codec_runs import GOOD, QUICK, assert_outputs, expected, failure, pid_of_process, transformed


def test_an_image_that_ends_its_process_fails_alone(codec, log):
    too_long = (ErrorCode.DECODE_TIMEOUT, "decoding did not end in the time that `max_image_seconds=1` allows")
    too_much = (ErrorCode.DECODE_MEMORY, "decoding takes more than 200 MB of memory")
    invalid = (ErrorCode.DECODE_CRASH, "the codec process returned an invalid answer")
    kinds = {
        "crash": (ErrorCode.DECODE_CRASH, "the decoder crashed (SIGSEGV)"),
        "abort": (ErrorCode.DECODE_CRASH, "the decoder crashed (SIGABRT)"),
        "exit_early": (ErrorCode.DECODE_CRASH, "the decoder crashed (exit code 3)"),
        "unknown_status": invalid,
        "bad_offset": invalid,
        "eat": too_much,
        "overflow": too_much,
        "spin": too_long,
        "spin_without_gil": too_long,
        "sleep": too_long,
    }
    found = {kind: failure(codec, poison(kind)) for kind in kinds}
    assert {kind: (error.code, error.message) for kind, error in found.items()} == kinds
    assert_outputs(codec, GOOD)
    [ate] = {int(what.split()[1]) for what, _ in logged(log) if what.startswith("ate")}
    assert 100 <= ate <= 200, "the decoder could use 100 to 200 MB"


def test_the_other_images_of_a_batch_are_transformed_once(codec, log):
    def image(seed):
        return jpeg(picture(40, 30, seed)) + b"poison:nothing"

    batch = [image(0), poison("crash"), image(2), poison("sleep"), image(4), poison("eat"), image(6), image(7)]
    others = [image(seed) for seed in range(8, 12)]
    answers = transformed(codec, *batch, *others)
    codes = [answer.code.value if isinstance(answer, ImageError) else "" for answer in answers]
    assert codes == ["", "decode.crash", "", "decode.timeout", "", "decode.memory", "", "", "", "", "", ""]
    made = [answer.data for answer in answers if isinstance(answer, Transformed)]
    assert made == [expected(image(seed)) for seed in (0, 2, 4, 6, 7, 8, 9, 10, 11)]
    assert [what for what, _ in logged(log) if not what.startswith("ate")] == ["crash", "crash", "sleep", "eat", "eat"]


def test_unexpected_messages_are_ignored(codec):
    images = [jpeg(picture(40, 30, 1)), poison("send_garbage"), jpeg(picture(40, 30, 2)), poison("send_garbage")]
    for _ in range(2):
        assert_outputs(codec, *images)


def test_an_image_does_not_fail_because_an_earlier_one_broke_the_process(codec, log):
    transformed(codec, poison("break_later"))
    broken = pid_of_process()
    assert_outputs(codec, GOOD)
    assert pid_of_process() != broken
    assert failure(codec, poison("crash")).code is ErrorCode.DECODE_CRASH
    processes = [pid for what, pid in logged(log) if what == "crash"]
    assert len(set(processes)) == len(processes) == 2


def test_an_image_is_tried_in_three_processes_if_they_are_killed_from_outside(codec, log):
    transformed(codec, GOOD)
    assert_outputs(codec, poison("oom_kill_once"))
    error = failure(codec, poison("oom_kill"))
    assert error.code is ErrorCode.DECODE_MEMORY
    assert error.message == "the codec process was killed, most likely for its memory"
    processes = {kind: [pid for what, pid in logged(log) if what == kind] for kind in ("oom_kill", "oom_kill_once")}
    assert {kind: len(set(pids)) for kind, pids in processes.items()} == {"oom_kill": 3, "oom_kill_once": 2}


def test_each_slow_image_has_its_own_time(codec):
    slow = QUICK.model_copy(update={"max_image_seconds": 0.7})  # 2.1 s of wall-clock time; each takes 1.5 s
    for _ in range(4):
        [made] = transformed(codec, poison("nap"), orders=slow)
        assert isinstance(made, Transformed)


def test_answers_of_an_unfinished_batch_are_dropped(codec, monkeypatch):
    answers = codec.run(Operation.DESCRIBE, QUICK, [GOOD] * BATCH_IMAGES)
    next(answers)
    answers.close()
    assert_outputs(codec, GOOD)
    with monkeypatch.context() as patch:
        patch.setattr(codec_handle.ProcessHandle, "wait", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(codec.run(Operation.DESCRIBE, QUICK, [b""] * BATCH_IMAGES))
    assert_outputs(codec, GOOD)


def test_many_images_share_the_memory_of_one_batch(codec):
    images = [jpeg(picture(40, 30, seed)) for seed in range(3 * BATCH_IMAGES + 1)]
    assert_outputs(codec, *images)
    assert len(codec._free) == 1


def test_images_and_outputs_larger_than_the_memory_of_a_batch(codec):
    large = jpeg(picture()) + os.urandom(SIZE + 1)
    orders = Orders(recipe=Recipe(width=3000, height=2500, format="png"), max_pixels=10**8, max_image_seconds=60)
    noise = encoded(picture(3000, 2500), "PNG", compress_level=1)
    first, second, third = transformed(codec, noise, large, noise, orders=orders)
    assert len(first.data) * 3 > SIZE
    assert first.data == third.data
    assert hashlib.sha256(second.data).digest() == hashlib.sha256(expected(large, orders.recipe)).digest()
    for _ in range(3):
        assert_outputs(codec, GOOD)


def test_a_process_cannot_make_memory_too_large_to_map(codec, log):
    answers = transformed(codec, GOOD, poison("grow_memory"), GOOD)
    assert [getattr(answer, "code", None) for answer in answers] == [None, ErrorCode.DECODE_CRASH, None]
    assert {what for what, _ in logged(log)} == {"grow_memory", "refused"}
