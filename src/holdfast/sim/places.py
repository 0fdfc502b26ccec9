"""Machines that are network namespaces: each with an address of its own, on one switch. As root.

A place is a process that does nothing in a network namespace of its own; commands enter it. The
switch is a bridge in a further namespace, so nothing of all this ever exists in the namespace we
were started in. When the processes end, the kernel takes everything back; they end with us.
An offline place has no interface but a dead loopback.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.errors import OperationFault, UsageError
from holdfast.rim.clock import Clock
from holdfast.rim.files import read_file
from holdfast.rim.process import Child, alive, spawn

START_S: Final = 10.0
STOP_S: Final = 5.0
COMMAND_S: Final = 10.0
POLL_S: Final = 0.02
PREFIX_BITS: Final = 24
LISTENING: Final = 10
"""State of a listening socket in /proc/net/tcp."""
_BRIDGE: Final = "switch0"
_PORT: Final = "eth0"


class TcpSocket(msgspec.Struct, frozen=True):
    """One row of a namespace's /proc/net/tcp. A remote port of 0: nobody."""

    host: str
    port: int
    remote: str
    remote_port: int
    state: int


class Place:
    """One namespace. `address` is empty for an offline one."""

    def __init__(self, name: str, address: str, holder: Child[Any]) -> None:
        self.name = name
        self.address = address
        self._holder = holder

    @property
    def pid(self) -> int:
        """The process that holds the namespace."""
        return self._holder.pid

    def enter(self, *command: str) -> tuple[str, ...]:
        """The command line that runs `command` here."""
        return ("nsenter", "--target", str(self.pid), "--net", "--", *command)

    def sockets(self) -> Iterator[TcpSocket]:
        """The TCP sockets of the whole namespace, as the kernel lists them."""
        for table in ("tcp", "tcp6"):
            data = read_file(Path(f"/proc/{self.pid}/net/{table}")) or b""
            for line in data.decode().splitlines()[1:]:
                fields = line.split()
                host, port = _end(fields[1])
                remote, remote_port = _end(fields[2])
                yield TcpSocket(host, port, remote, remote_port, int(fields[3], 16))

    async def stop(self, clock: Clock) -> None:
        """End the holder; what else still runs here keeps the namespace."""
        await self._holder.stop(clock, STOP_S)


class Places:
    """The switch and the places on it."""

    def __init__(self, clock: Clock, log: Path) -> None:
        self._clock = clock
        self._log = log
        self._switch: Place | None = None
        self._places: list[Place] = []

    @property
    def count(self) -> int:
        """Places, the switch not counted."""
        return len(self._places)

    async def make(self, name: str, address: str = "") -> Place:
        """A new place at `address` (IPv4), or an offline one. Raises UsageError without the right
        to make namespaces."""
        if self._switch is None:
            self._switch = await self._hold("switch", "")
            await self._run(self._switch, "ip", "link", "add", _BRIDGE, "type", "bridge")
            await self._run(self._switch, "ip", "link", "set", _BRIDGE, "up")
        place = await self._hold(name, address)
        self._places.append(place)
        if address:
            await self._wire(self._switch, place)
        return place

    async def stop(self) -> int:
        """End every holder; how many of them are left."""
        held = [*self._places, *([self._switch] if self._switch else [])]
        for place in held:
            await place.stop(self._clock)
        return sum(alive(place.pid) for place in held)

    async def cut(self, place: Place) -> None:
        """Pull the plug: packets vanish, and nobody is told."""
        assert self._switch is not None, "a place was made"
        await self._run(self._switch, "ip", "link", "set", self._near(place), "down")

    def _near(self, place: Place) -> str:
        return f"port{self._places.index(place)}"

    async def _wire(self, switch: Place, place: Place) -> None:
        near, far = self._near(place), f"far{self._places.index(place)}"
        await self._run(switch, "ip", "link", "add", near, "type", "veth", "peer", "name", far)
        await self._run(switch, "ip", "link", "set", far, "netns", str(place.pid))
        await self._run(switch, "ip", "link", "set", near, "master", _BRIDGE, "up")
        await self._run(place, "ip", "link", "set", "lo", "up")
        await self._run(place, "ip", "link", "set", far, "name", _PORT)
        await self._run(place, "ip", "link", "set", _PORT, "up")
        where = f"{place.address}/{PREFIX_BITS}"
        await self._run(place, "ip", "address", "add", where, "dev", _PORT)

    async def _hold(self, name: str, address: str) -> Place:
        holder: Child[Any] = await spawn(
            ("unshare", "--net", "sleep", "infinity"), log=self._log, own_session=True
        )
        ours = os.readlink("/proc/self/ns/net")
        try:
            async with self._clock.real_timeout(START_S):
                while _namespace(holder.pid) in ("", ours):
                    if holder.status is not None:
                        raise UsageError("cannot make a network namespace; run this as root")
                    await self._clock.sleep_real(POLL_S)
        except TimeoutError as error:
            holder.kill()
            raise OperationFault("a network namespace did not come up") from error
        return Place(name, address, holder)

    async def _run(self, place: Place, *command: str) -> None:
        child: Child[Any] = await spawn(place.enter(*command), log=self._log)
        try:
            async with self._clock.real_timeout(COMMAND_S):
                status = await child.wait()
        except TimeoutError as error:
            child.kill()
            raise OperationFault(f"{' '.join(command)} hangs") from error
        if status != 0:
            text = f"{' '.join(command)} failed; needs iproute2 and root, see {self._log}"
            raise OperationFault(text, retryable=False)


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


def _end(text: str) -> tuple[str, int]:
    """`0100007F:1F90` as ("127.0.0.1", 8080): four-byte words in the machine's (little) order."""
    host, _, port = text.partition(":")
    data = bytes.fromhex(host)
    words = b"".join(data[start : start + 4][::-1] for start in range(0, len(data), 4))
    mapped = words[12:] if words[:12] == b"\0" * 10 + b"\xff\xff" else words
    return str(ip_address(mapped)), int(port, 16)
