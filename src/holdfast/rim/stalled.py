"""Ends connections of a listening port that hang on and say nothing (seed 004 §11.3).

Granian bounds the time for a request's header and we bound the one for its body, but nothing in it
that we could set bounds a TLS handshake (its listener gives one ten seconds, and promises nothing),
and whoever does not read an answer would hold one of the process's descriptors for ever. The kernel
knows who that is. `TCP_INFO` of an accepted socket tells how many bytes went each way and how long
ago, so this asks for each descriptor of ours, in small slices, and shuts down

* one to which we have said nothing `handshake_s` after it was first seen: no ClientHello came, or
  not all of it;
* one on which neither side has said anything for `quiet_s`: a handshake that stopped half way, a
  reader who does not read, a peer that is gone without a word.

Shutting down is not closing: the descriptor stays its owner's, who reads end of file and closes it
in its own way. It is done on a duplicate that was checked itself, so that a number which was given
to another file in the meantime hits nobody.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from holdfast.limits import STALLED_PERIOD_S, STALLED_SLICE
from holdfast.rim.clock import Clock

_INFO: Final = struct.Struct("=B43xI4xI144xQ")
"""Of `struct tcp_info` (Linux 4.19): state, ms since we and the peer last sent, bytes we sent."""
_OPEN: Final = frozenset({1, 8})
"""ESTABLISHED, and CLOSE_WAIT: the peer has said its last, we have not. The listening socket is
neither, and so is one that was ended here and that its owner has not closed yet."""


class _Talk(NamedTuple):
    """What the kernel tells of one connection."""

    state: int
    sent_ms_ago: int
    heard_ms_ago: int
    sent_bytes: int


class StalledConnections:
    """Watches the connections accepted at one local port of this process."""

    def __init__(self, port: int, clock: Clock, *, handshake_s: float, quiet_s: float) -> None:
        """Both times are real seconds."""
        self._port = port
        self._clock = clock
        self._handshake_s = handshake_s
        self._quiet_ms = quiet_s * 1_000
        self._silent: dict[int, tuple[object, float]] = {}
        """By descriptor, where we have said nothing yet: the peer, and when we first saw it."""
        self.ended = 0

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            await self._clock.sleep_real(STALLED_PERIOD_S)
            await self.look()

    async def look(self) -> None:
        """Look at every descriptor once; other tasks run in between."""
        silent: dict[int, tuple[object, float]] = {}
        for number, name in enumerate(os.listdir("/proc/self/fd")):
            if number % STALLED_SLICE == STALLED_SLICE - 1:
                await self._clock.sleep_real(0)
            fd = int(name)
            talk = _talk(fd)
            if talk is None or talk.state not in _OPEN:
                continue
            if talk.sent_bytes:
                if min(talk.sent_ms_ago, talk.heard_ms_ago) > self._quiet_ms:
                    self._end(fd, None)
                continue
            seen = self._first_seen(fd)
            if seen is None:
                continue
            silent[fd] = seen
            if self._now() - seen[1] > self._handshake_s:
                self._end(fd, seen[0])
        self._silent = silent

    def _first_seen(self, fd: int) -> tuple[object, float] | None:
        """The peer of a connection of ours and when it was first seen; None for any other."""
        try:
            with _borrowed(fd) as borrowed:
                if borrowed.getsockname()[1] != self._port:
                    return None
                peer = borrowed.getpeername()
        except OSError:
            return None
        seen = self._silent.get(fd)
        return seen if seen is not None and seen[0] == peer else (peer, self._now())

    def _end(self, fd: int, peer: object) -> None:
        """Shut a connection down if it still is the one that was looked at."""
        try:
            held = os.dup(fd)
        except OSError:
            return
        try:
            talk = _talk(held)
            if talk is None or talk.state not in _OPEN:
                return
            quiet = min(talk.sent_ms_ago, talk.heard_ms_ago) > self._quiet_ms
            with contextlib.suppress(OSError), _borrowed(held) as borrowed:
                if borrowed.getsockname()[1] != self._port:
                    return
                if quiet or (not talk.sent_bytes and borrowed.getpeername() == peer):
                    borrowed.shutdown(socket.SHUT_RDWR)
                    self.ended += 1
        finally:
            os.close(held)

    def _now(self) -> float:
        return self._clock.elapsed() / self._clock.scale


@contextlib.contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket]:
    """A socket object over a descriptor that stays somebody else's. Raises OSError when it is no
    socket."""
    # The family is given because asking for it costs two system calls; addresses bring their own.
    borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        yield borrowed
    finally:
        borrowed.detach()


class _Asker:
    """Asks the kernel about descriptors. Past Python's socket object, which costs twice as much as
    the question, and holding the interpreter lock: the answer comes at once."""

    def __init__(self) -> None:
        self._getsockopt = ctypes.PyDLL(None).getsockopt
        self._data = (ctypes.c_char * _INFO.size)()
        self._size = ctypes.c_uint32()
        self._reference = ctypes.byref(self._size)

    def __call__(self, fd: int) -> _Talk | None:
        """What the kernel tells of a TCP socket; None for any other descriptor."""
        self._size.value = _INFO.size
        level, option = socket.IPPROTO_TCP, socket.TCP_INFO
        failed = self._getsockopt(fd, level, option, self._data, self._reference)
        if failed or self._size.value != _INFO.size:
            return None
        return _Talk(*_INFO.unpack_from(self._data))


_talk: Final = _Asker()
