"""A Slurm cluster of one node on loopback, for tests: Debian's slurmctld, slurmd and munged."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.needs import needs
from tests.ports import free_ports

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=2000
PartitionName=all Nodes=ALL Default=YES State=UP
"""


@contextmanager
def slurm_node() -> Iterator[dict[str, str]]:
    """Run a cluster until the block ends; provide the environment variables by which Slurm's commands find it."""
    programs = {
        name: needs(name, package, folders="usr/sbin")
        for name, package in [("munged", "munge"), ("slurmctld", "slurmctld"), ("slurmd", "slurmd")]
    }
    needs("sbatch", "slurm-client")
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, ExitStack() as stack:
        folder, host = Path(name), socket.gethostname().partition(".")[0]
        folder.chmod(0o755)  # munged refuses a socket in a folder that other users can't enter
        for part in ("state", "spool"):
            (folder / part).mkdir()
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
        configuration = folder / "slurm.conf"
        values = {"host": host, "ports": free_ports(2), "folder": folder, "user": getpass.getuser()}
        configuration.write_text(CONFIGURATION.format(**values, cores=os.cpu_count()))
        environment = os.environ | {"SLURM_CONF": str(configuration)}
        munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        commands = [
            [programs["munged"], "--foreground", f"--socket={folder}/munge.socket", *munge],
            [programs["slurmctld"], "-D"],
            [programs["slurmd"], "-D", "-N", host],
        ]
        with (folder / "log").open("wb") as log:
            for command in commands:
                process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
                stack.callback(process.wait)
                stack.callback(process.terminate)
            yield {"SLURM_CONF": str(configuration)}
