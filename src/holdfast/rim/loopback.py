"""JSON over plain HTTP between processes of one machine, with a bearer key.

For what never leaves the machine: a process provider's API and HQ's admin port. Anything else
speaks TLS (`rim.https`). The server is `rim.loopback_server`. The client opens a connection for
each call; nothing here is on a hot path.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Final, TypeVar

from holdfast.errors import HoldfastError, OperationFault, PeerFault, UsageError
from holdfast.limits import MIB
from holdfast.rim.clock import Clock
from holdfast.wire.address import split_address
from holdfast.wire.codec import pack_json, unpack_json
from holdfast.wire.hq import Problem

T = TypeVar("T")
LOOPBACK_REPLY_BYTES_MAX: Final = 64 * MIB
LOOPBACK_CALL_S: Final = 30.0
_HEAD_BYTES_MAX: Final = 64 * 1024


class LoopbackClient:
    """Calls one service at `address` (`host:port` or `http://host:port`)."""

    def __init__(self, address: str, key: str | Callable[[], str], clock: Clock) -> None:
        """`key` may be asked for at every call, when it lies in a file that comes and goes."""
        self._host, self._port = loopback_address(address)
        self._key = key
        self._clock = clock

    async def call(
        self,
        method: str,
        path: str,
        body: object | None,
        reply: type[T],
        *,
        timeout_s: float = LOOPBACK_CALL_S,
    ) -> T:
        """One request. Raises OperationFault when the service is away or failed, UsageError when
        it says no, PeerFault when it does not speak JSON as agreed."""
        status, data = await self.exchange(method, path, body, timeout_s=timeout_s)
        return self.read(status, data, reply)

    @staticmethod
    def read(status: int, data: bytes, reply: type[T]) -> T:
        """The message of a reply. Raises as `call` does."""
        if 200 <= status < 300:
            return unpack_json(reply, data, bytes_max=LOOPBACK_REPLY_BYTES_MAX)
        raise _refusal(status, data)

    async def exchange(
        self, method: str, path: str, body: object | None, *, timeout_s: float = LOOPBACK_CALL_S
    ) -> tuple[int, bytes]:
        """Status and body of the reply, whatever they are. Raises OperationFault, PeerFault."""
        where = f"{self._host}:{self._port}"
        writer: asyncio.StreamWriter | None = None
        try:
            async with self._clock.real_timeout(timeout_s):
                reader, writer = await asyncio.open_connection(
                    self._host, self._port, limit=_HEAD_BYTES_MAX
                )
                writer.write(self._request(method, path, body))
                await writer.drain()
                return await _read_reply(reader)
        except TimeoutError as error:
            raise OperationFault(f"{where} did not answer within {timeout_s:g} s") from error
        except (OSError, asyncio.IncompleteReadError) as error:
            raise OperationFault(f"cannot reach {where}: {error}; is it running?") from error
        finally:
            if writer is not None:
                writer.close()

    def _request(self, method: str, path: str, body: object | None) -> bytes:
        data = b"" if body is None else pack_json(body)
        key = self._key if isinstance(self._key, str) else self._key()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + data


async def _read_reply(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise PeerFault("reply with an endless head") from error
    line, *fields = head.decode("latin-1").split("\r\n")
    parts = line.split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
        raise PeerFault("reply that is not HTTP")
    headers = {name.strip().lower(): value.strip() for name, _, value in _pairs(fields)}
    length = headers.get("content-length", "")
    if not length.isdigit():
        raise PeerFault("reply without a length")
    if int(length) > LOOPBACK_REPLY_BYTES_MAX:
        raise PeerFault(f"reply of {length} bytes", code="too-large")
    return int(parts[1]), await reader.readexactly(int(length))


def _pairs(fields: list[str]) -> list[tuple[str, str, str]]:
    return [field.partition(":") for field in fields if field]


def _refusal(status: int, data: bytes) -> HoldfastError:
    """The error a reply of `status` stands for."""
    try:
        text = unpack_json(Problem, data, bytes_max=_HEAD_BYTES_MAX).message
    except PeerFault:
        text = f"status {status}"
    return OperationFault(text) if status >= 500 or status == 429 else UsageError(text)


def loopback_address(text: str) -> tuple[str, int]:
    """(host, port) of an address on this machine. Raises UsageError for any other."""
    try:
        host, port = split_address(text.removeprefix("http://").rstrip("/"))
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return host, port
    except (PeerFault, ValueError):
        pass
    raise UsageError(f"{text!r} is no loopback address; write 127.0.0.1:port")


def is_loopback(text: str) -> bool:
    """Whether `host:port` is on this machine's loopback."""
    try:
        loopback_address(text)
    except UsageError:
        return False
    return True
