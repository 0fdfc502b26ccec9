"""Which addresses this machine has on the networks it is on."""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import Final

_NOWHERE: Final = (("192.0.2.1", 9), ("2001:db8::1", 9))
"""Documentation addresses: choosing a route to them sends nothing."""


_SIOCGIFADDR: Final = 0x8915


def interface_addresses() -> tuple[str, ...]:
    """IPv4 addresses of every network this machine is on, loopback left out; no route is needed."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:
                continue
            found.append(socket.inet_ntoa(answer[20:24]))
    return tuple(host for host in found if not host.startswith("127."))


def own_addresses() -> tuple[str, ...]:
    """Addresses others of the same network reach this machine at; loopback when there is none."""
    found = []
    for family, nowhere in zip((socket.AF_INET, socket.AF_INET6), _NOWHERE, strict=True):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(nowhere)
                found.append(str(probe.getsockname()[0]))
        except OSError:
            continue
    return tuple(found) or ("127.0.0.1",)
