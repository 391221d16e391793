"""Several hosts on one machine: network namespaces, joined by a bridge. Needs root on Linux."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.needs import needs, skip_or_fail

NETWORK = "10.231.77"


class Host:
    """A host with an address of its own."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, command: Sequence[str], environment: Mapping[str, str], **options: Any) -> subprocess.Popen[str]:
        """Start a command on this host."""
        whole = ["ip", "netns", "exec", self.name, *command]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(whole, env=environment, text=True, **silent | options)
        self._processes.append(process)
        return process

    def cut_off(self) -> None:
        """Disconnect this host from the network: packets to it or from it are lost."""
        _ip("link", "set", f"v{self.name}", "down")

    def close(self) -> None:
        """Kill all processes on this host, and remove it."""
        subprocess.run(f"kill -9 $(ip netns pids {self.name})", shell=True, check=False, stderr=subprocess.DEVNULL)  # noqa: S602
        for process in self._processes:
            with process:
                pass
        _ip("netns", "delete", self.name)


class Network:
    """A network of hosts, on which this machine can have addresses, too."""

    def __init__(self, bridge: str) -> None:
        self._bridge = bridge
        self._hosts = 100
        self._stack = ExitStack()

    def add_address(self, number: int) -> str:
        """Add an address at which the hosts can reach this machine, and return it."""
        _ip("address", "add", f"{NETWORK}.{number}/24", "dev", self._bridge)
        return f"{NETWORK}.{number}"

    def remove_address(self, number: int) -> None:
        """Remove an address of this machine: packets to it are lost until it is added again."""
        _ip("address", "delete", f"{NETWORK}.{number}/24", "dev", self._bridge)

    def add_host(self) -> Host:
        """Add a host, and return it."""
        self._hosts += 1
        host = Host(f"{self._bridge}-{self._hosts}", f"{NETWORK}.{self._hosts}")
        _ip("netns", "add", host.name)
        self._stack.callback(host.close)
        _ip("link", "add", f"v{host.name}", "type", "veth", "peer", "name", "eth0", "netns", host.name)
        _ip("link", "set", f"v{host.name}", "master", self._bridge, "up")
        for command in (
            ["address", "add", f"{host.address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["link", "set", "lo", "up"],
        ):
            _ip("-netns", host.name, *command)
        return host

    def close(self) -> None:
        """Remove all hosts and their processes."""
        self._stack.close()


@contextmanager
def network() -> Iterator[Network]:
    """Run a network until the block ends; where that isn't possible, skip the test, or fail it in CI."""
    needs("ip", "iproute2", folders="usr/sbin")
    bridge = f"dk{os.getpid() % 10_000}"
    made = subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], capture_output=True, text=True, check=False)
    if made.returncode:
        skip_or_fail(f"this user can't create network namespaces ({made.stderr.strip()})")
    found = Network(bridge)
    try:
        _ip("link", "set", bridge, "up")
        yield found
    finally:
        found.close()
        _ip("link", "delete", bridge)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
