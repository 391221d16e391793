"""Start, replace and end codec processes and their server."""

import hashlib
import os
import sys
from contextlib import closing

import psutil
import pytest

from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.worker import codec_handle
from darkroom.tasks.worker.codec import Codec
from darkroom.tasks.worker.codec_handle import end_server, start_server
from tests.tasks.worker.codec_runs import GOOD, assert_outputs, codec_server, expected, pid_of_process, transformed


def test_a_process_that_is_killed_while_idle_is_replaced(codec):
    transformed(codec, GOOD)
    psutil.Process(pid_of_process()).kill()
    assert_outputs(codec, GOOD, GOOD)


def test_a_server_that_has_ended_is_replaced(codec):
    transformed(codec, GOOD)
    codec_server().kill()
    assert_outputs(codec, GOOD)


def test_a_codec_process_gets_no_credentials_and_loads_only_codecs(codec, monkeypatch):
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
    assert len([name for name in held if "socket" in name]) == 1, "the only open socket is its own channel"


@pytest.mark.usefixtures("log")
def test_forked_workers_share_the_server():
    server = start_server()
    reader, writer = os.pipe()
    worker = os.fork()
    if not worker:
        with closing(Codec()) as codec:
            os.write(writer, hashlib.sha256(transformed(codec, GOOD)[0].data).digest())
            os._exit(0 if codec_handle.ServerHandle.current is server else 1)
    assert os.waitpid(worker, 0)[1] == 0
    assert os.read(reader, 100) == hashlib.sha256(expected()).digest()
    os.close(reader)
    os.close(writer)


@pytest.mark.usefixtures("log")
def test_no_image_is_blamed_when_no_process_can_be_started(monkeypatch, tmp_path):
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
