"""An observer: the TCP payloads that pass an interface of this namespace, as tshark sees them.

Needs the right to capture, which root of a namespace of its own has.
"""

from __future__ import annotations

import socket
import struct
import threading
from typing import Final

import msgspec

_IPV4: Final = 0x0800
_TCP: Final = 6
_KEPT_MAX: Final = 100_000


class Segment(msgspec.Struct, frozen=True):
    """The first payload of one direction of a TCP connection."""

    source: tuple[str, int]
    target: tuple[str, int]
    data: bytes


class Capture:
    """Collects the first segment of each direction of each connection. `start` and `stop`."""

    def __init__(self, interface: str = "lo") -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_IPV4))
        self._socket.bind((interface, _IPV4))
        self._socket.settimeout(0.2)
        self._stopping = False
        self._seen: set[tuple[tuple[str, int], tuple[str, int]]] = set()
        self.segments: list[Segment] = []
        self.payloads = bytearray()
        """The first bytes of everything, to look for names in."""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._stopping:
            try:
                packet = self._socket.recv(65_535)
            except TimeoutError:
                continue
            except OSError:
                return
            self._take(packet)

    def _take(self, packet: bytes) -> None:
        head = (packet[0] & 0x0F) * 4
        if packet[9] != _TCP or len(packet) < head + 20:
            return
        (total,) = struct.unpack_from(">H", packet, 2)
        source, target = struct.unpack_from(">HH", packet, head)
        data = packet[head + (packet[head + 12] >> 4) * 4 : total or len(packet)]
        way = (
            (socket.inet_ntoa(packet[12:16]), source),
            (socket.inet_ntoa(packet[16:20]), target),
        )
        if data and way not in self._seen and len(self.segments) < _KEPT_MAX:
            self._seen.add(way)
            self.segments.append(Segment(*way, data))
            self.payloads += data[:4096]
