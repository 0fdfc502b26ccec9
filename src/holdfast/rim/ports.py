"""Which ports and loopback subnets of this machine are free, found by asking the kernel."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Final

from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.wire.address import split_address

SUBNET_FIRST: Final = 10
SUBNET_LAST: Final = 250
"""127.10 to 127.250: away from 127.0 (everybody's) and 127.255 (broadcast)."""
PORT_FIRST: Final = 20_000
PORT_LAST: Final = 32_000
"""Below the range from which the kernel draws ports of outgoing connections."""


def can_bind(host: str, port: int) -> bool:
    """Whether TCP and UDP `port` of `host` are free now."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


def free_port(host: str, entropy: Entropy) -> int:
    """A port of `host` that is free for TCP and UDP. Raises OperationFault when none is found."""
    for _ in range(1_000):
        port = PORT_FIRST + int.from_bytes(entropy.bytes(4), "big") % (PORT_LAST - PORT_FIRST)
        if can_bind(host, port):
            return port
    raise OperationFault(f"no free port on {host}; stop something first")


class HeldPort:
    """A free TCP port of `host` at which no other user's program can listen while this is held.

    Bound and never listened at. Linux lets programs of the same user listen there that ask to share
    (SO_REUSEPORT), as Envoy and Xray do, and nobody else, also while they start again (socket(7)).
    Raises OperationFault when none is found.
    """

    def __init__(self, host: str, entropy: Entropy) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        while True:
            self.port = free_port(host, entropy)
            try:
                self._socket.bind((host, self.port))
                break
            except OSError:
                continue  # taken a moment ago
        # Only now: two who hold would share, if both asked for it before they bound.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

    def release(self) -> None:
        """Anybody may listen there again."""
        self._socket.close()


def free_subnets(count: int, port: int, entropy: Entropy) -> tuple[str, ...]:
    """`count` loopback subnets (`127.n`) in which nobody listens on `port`, next to each other.

    Raises OperationFault when there are none.
    """
    span = SUBNET_LAST - SUBNET_FIRST - count
    assert span > 0, "more subnets than loopback has"
    start = int.from_bytes(entropy.bytes(4), "big") % span
    for offset in range(0, span, count):
        first = SUBNET_FIRST + (start + offset) % span
        subnets = tuple(f"127.{first + index}" for index in range(count))
        if all(can_bind(host, port) for host in _samples(subnets)):
            return subnets
    raise OperationFault(f"no free loopback subnet for port {port}; stop something first")


def _samples(subnets: tuple[str, ...]) -> Iterator[str]:
    """The addresses that a provider hands out first."""
    for subnet in subnets:
        for host in range(1, 17):
            yield f"{subnet}.0.{host}"


def address_towards(address: str) -> str:
    """The address of this machine from which the kernel would call `address` (`host:port`); sends
    nothing. Raises OperationFault when there is no way there."""
    host, port = split_address(address)
    try:
        family, kind, proto, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.connect(where)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise OperationFault(f"no way to {address}: {error.strerror or error}") from error


async def answers(address: str, clock: Clock, timeout_s: float = 2.0) -> bool:
    """Whether somebody accepts connections at `address` (`host:port`)."""
    host, port = split_address(address)
    try:
        async with clock.real_timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def open_ports(host: str, first: int = 1, last: int = 65_535, timeout_s: float = 2.0) -> list[int]:
    """Which TCP ports of `host` accept a connection from here. Blocks; closed ports of a machine
    that answers cost some microseconds each, silent ones `timeout_s` real seconds."""
    found = []
    for port in range(first, last + 1):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.settimeout(timeout_s)
            if probe.connect_ex((host, port)) == 0:
                found.append(port)
    return found
