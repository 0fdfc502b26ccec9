"""The internet of a drill: a web server that counts, a name server, and a SOCKS5 client.

Blocking sockets in threads: both ends should cost little beside what is measured between them.
The web server answers `GET /<bytes>` with that many bytes of one fixed stream, so that a client
can compare every byte; the name server answers any question with the question behind `ANSWER`.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import blake3
import msgspec

from holdfast.errors import OperationFault
from holdfast.limits import MIB

ANSWER: Final = b"answer:"
_BLOCK: Final = blake3.blake3(b"holdfast drill stream").digest(length=MIB)
_HEAD_BYTES_MAX: Final = 64 * 1024


class Fetched(msgspec.Struct, frozen=True):
    """One download. Times are real seconds from the start of the request."""

    received: int
    digest: bytes
    first_byte_s: float
    total_s: float


def on_the_wire(size: int) -> tuple[int, int]:
    """Bytes up and down of one `fetch` of `size`: the request, and the answer with its head."""
    return len(_request(size)), len(_head(size)) + size


def _request(size: int) -> bytes:
    return b"GET /%d HTTP/1.1\r\nhost: drill\r\n\r\n" % size


def _head(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size


def expected(size: int) -> bytes:
    """The digest of the first `size` bytes of the stream."""
    hasher = blake3.blake3()
    for start in range(0, size, MIB):
        hasher.update(_BLOCK[: min(MIB, size - start)])
    return hasher.digest()


class Internet:
    """Servers at `host`: HTTP on 80, UDP on 53. `start` and `stop`."""

    def __init__(
        self, host: str, web_port: int = 80, dns_port: int = 53, pace: float = 0.0
    ) -> None:
        """`pace`: bytes a second of each connection, 0 for as fast as it goes."""
        self.host = host
        self._pace = pace
        self.web_port = web_port
        self._listener = socket.create_server((host, web_port), backlog=4096)
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((host, dns_port))
        self._lock = threading.Lock()
        self.requests = 0
        self.sent = 0
        """Bytes of bodies that were handed to the kernel."""

    def start(self) -> None:
        """Serve in threads of the background."""
        for work in (self._accept, self._answer):
            threading.Thread(target=work, daemon=True).start()

    def stop(self) -> None:
        """Serve nobody new."""
        self._listener.close()
        self._udp.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                while self._one(client):
                    pass
            except (OSError, ValueError):
                return

    def _one(self, client: socket.socket) -> bool:
        head = _until(client, b"\r\n\r\n")
        if head is None:
            return False
        size = int(head.split(b" ", 2)[1].lstrip(b"/") or b"0")
        client.sendall(_head(size))
        with self._lock:
            self.requests += 1
        left = size
        while left:
            piece = _piece(size - left, left)
            if self._pace:
                piece = piece[: max(1, int(self._pace / 50))]
                time.sleep(0.02)
            sent = client.send(piece)
            left -= sent
            with self._lock:
                self.sent += sent
        return True

    def _answer(self) -> None:
        while True:
            try:
                data, source = self._udp.recvfrom(4096)
                self._udp.sendto(ANSWER + data, source)
            except OSError:
                return


def _piece(offset: int, left: int) -> memoryview:
    start = offset % MIB
    return memoryview(_BLOCK)[start : start + min(left, MIB - start)]


def fetch(
    proxy: tuple[str, int],
    target: tuple[str, int],
    size: int,
    timeout_s: float = 30.0,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> Fetched:
    """Download `size` bytes through a SOCKS5 proxy. Raises OperationFault."""
    began = time.monotonic()
    hasher, received, first = blake3.blake3(), 0, 0.0
    buffer = bytearray(MIB)
    try:
        with _socks(proxy, target, timeout_s) as conn:
            conn.sendall(_request(size))
            head = _until(conn, b"\r\n\r\n")
            if head is None or b" 200 " not in head:
                raise OperationFault("no answer through the tunnel")
            first = time.monotonic() - began
            while received < size:
                count = conn.recv_into(buffer)
                if not count:
                    break
                hasher.update(memoryview(buffer)[:count])
                received += count
                on_bytes(count)
    except OSError as error:
        raise OperationFault(f"through the tunnel: {error}") from error
    return Fetched(received, hasher.digest(), first, time.monotonic() - began)


def hold(proxy: tuple[str, int], target: tuple[str, int], count: int) -> int:
    """Open `count` connections through a proxy, use all, keep all, use all again; how many held."""
    held: list[socket.socket] = []
    try:
        for _ in range(count):
            try:
                held.append(_socks(proxy, target, 10.0))
            except OSError:
                break
        return min(sum(map(_alive, held)), sum(map(_alive, held)))
    finally:
        for conn in held:
            conn.close()


@contextmanager
def unread(proxy: tuple[str, int], target: tuple[str, int], count: int) -> Iterator[None]:
    """While this lasts, `count` downloads through a proxy are under way and nobody reads them.
    Raises OperationFault when one does not begin."""
    held: list[socket.socket] = []
    try:
        for _ in range(count):
            conn = _socks(proxy, target, 10.0)
            held.append(conn)
            conn.sendall(_request(1_000 * MIB))
            if _until(conn, b"\r\n\r\n") is None:
                raise OperationFault("no answer through the tunnel")
        yield
    except OSError as error:
        raise OperationFault(f"through the tunnel: {error}") from error
    finally:
        for conn in held:
            conn.close()


def outlives(proxy: tuple[str, int], target: tuple[str, int], count: int) -> bool:
    """Whether a connection through a proxy still works after `count` short ones, each cut by us as
    browsers do. Raises OperationFault when one of those fails."""
    try:
        with _socks(proxy, target, 10.0) as conn:
            if not _alive(conn):
                return False
            for _ in range(count):
                fetch(proxy, target, 1, 10.0)
            return _alive(conn)
    except OSError:
        return False


def _alive(conn: socket.socket) -> bool:
    try:
        conn.sendall(b"GET /1 HTTP/1.1\r\nhost: drill\r\n\r\n")
        return _until(conn, b"\r\n\r\n") is not None and len(conn.recv(1)) == 1
    except OSError:
        return False


def reaches(proxy: tuple[str, int], target: tuple[str, int], timeout_s: float = 3.0) -> bool:
    """Whether a TCP server answers through a SOCKS5 proxy with at least one byte."""
    try:
        with _socks(proxy, target, timeout_s) as conn:
            conn.sendall(b"GET /1 HTTP/1.1\r\nhost: drill\r\n\r\n")
            return bool(conn.recv(1))
    except OSError:
        return False


def ask(
    proxy: tuple[str, int], target: tuple[str, int], question: bytes, timeout_s: float = 3.0
) -> bytes:
    """One datagram there and back through a SOCKS5 proxy. Raises OperationFault."""
    try:
        with socket.create_connection(proxy, timeout_s) as control:
            control.sendall(b"\5\1\0")
            _exactly(control, 2)
            control.sendall(b"\5\3\0\1" + bytes(6))
            reply = _exactly(control, 10)
            relay = (socket.inet_ntoa(reply[4:8]), int.from_bytes(reply[8:], "big"))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                udp.settimeout(timeout_s)
                udp.sendto(b"\0\0\0" + _address(target) + question, relay)
                return udp.recv(65_535)[10:]
    except OSError as error:
        raise OperationFault(f"no datagram through the tunnel: {error}") from error


def _socks(proxy: tuple[str, int], target: tuple[str, int], timeout_s: float) -> socket.socket:
    conn = socket.create_connection(proxy, timeout_s)
    try:
        conn.sendall(b"\5\1\0")
        _exactly(conn, 2)
        conn.sendall(b"\5\1\0" + _address(target))
        if _exactly(conn, 10)[1] != 0:
            raise ConnectionError("the proxy refuses")
    except BaseException:
        conn.close()
        raise
    return conn


def _address(target: tuple[str, int]) -> bytes:
    host, port = target
    try:
        return b"\1" + socket.inet_aton(host) + port.to_bytes(2, "big")
    except OSError:
        return b"\3" + bytes([len(host)]) + host.encode() + port.to_bytes(2, "big")


def _exactly(conn: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = conn.recv(size - len(data))
        if not piece:
            raise ConnectionError("the other side hung up")
        data += piece
    return data


def _until(conn: socket.socket, mark: bytes) -> bytes | None:
    """Bytes up to and with `mark`, read one by one so that none of what follows is taken."""
    data = b""
    while not data.endswith(mark):
        piece = conn.recv(1)
        if not piece or len(data) > _HEAD_BYTES_MAX:
            return None
        data += piece
    return data
