"""Which ports of a host take connections: what anybody on the network can find out."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Final

_AT_ONCE: Final = 500
_WAIT_MS: Final = 1_000
_LISTENS: Final = "0A"


async def scan(host: str, ports: Iterable[int]) -> list[int]:
    """TCP ports of an IPv4 host that are open, asked by a connection to each."""
    return await asyncio.to_thread(_scan, host, ports)


def _scan(host: str, ports: Iterable[int]) -> list[int]:
    left, found = iter(ports), []
    while batch := list(islice(left, _AT_ONCE)):
        found += _batch(host, batch)
    return found


def _batch(host: str, ports: list[int]) -> list[int]:
    waiting: dict[int, tuple[socket.socket, int]] = {}
    poll, found = select.poll(), []
    for port in ports:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        one.setblocking(False)
        one.connect_ex((host, port))
        waiting[one.fileno()] = (one, port)
        poll.register(one, select.POLLOUT)
    while waiting:
        events = poll.poll(_WAIT_MS)
        if not events:
            break
        for number, _ in events:
            one, port = waiting.pop(number)
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.append(port)
            poll.unregister(number)
            one.close()
    for one, _ in waiting.values():
        one.close()
    return found


def bound(pid: int, kind: str) -> list[int]:
    """Ports that listen (`tcp`) or are bound (`udp`) in the network namespace of a process, as its
    kernel lists them."""
    ports = set()
    for name in (kind, f"{kind}6"):
        for row in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = row.split()
            if kind == "udp" or fields[3] == _LISTENS:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return sorted(ports)


def default_routes(pid: int) -> int:
    """IPv4 default routes in the network namespace of a process."""
    rows = Path(f"/proc/{pid}/net/route").read_text().splitlines()[1:]
    return sum(row.split()[1] == "00000000" for row in rows)
