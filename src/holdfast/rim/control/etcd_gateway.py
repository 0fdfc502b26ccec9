"""Calls to etcd's JSON gateway: several members, one TLS identity, errors made ours here.

A call goes to the member that answered last; when that one fails, to the next. What may have been
carried out without our knowing is not sent twice: a transaction moves on only while it cannot have
left (no connection), and is otherwise an `OperationFault` that the caller settles by reading.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx2
import msgspec

from holdfast.errors import OperationFault
from holdfast.limits.control import CALL_REAL_S, CALL_TRIES, WATCH_LINE_BYTES_MAX
from holdfast.rim.clock import Clock
from holdfast.rim.control.etcd_access import EtcdAccess
from holdfast.rim.control.etcd_wire import Fault, Watched, WatchLine

T = TypeVar("T")
_NEEDS_LEADER: Final = {"Grpc-Metadata-hasleader": "true"}
"""A member without a leader ends the watch instead of letting it starve."""
_NOT_FOUND: Final = 5
_OUT_OF_RANGE: Final = 11
_INVALID: Final = 3
_BROKEN: Final = (httpx2.TransportError, ssl.SSLError)
"""TLS 1.3 tells of a refused client certificate at the first read, past httpx's translation."""
_UNSENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


class EtcdSays(OperationFault):
    """etcd refused; `code` is gRPC's."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"etcd: {fault.error}", retryable=fault.code != _INVALID)
        self.not_found = fault.code == _NOT_FOUND
        self.out_of_range = fault.code == _OUT_OF_RANGE
        self.text = fault.error


class Gateway:
    """One client of all members."""

    def __init__(self, access: EtcdAccess, base: Path, clock: Clock) -> None:
        context = access.context(base)
        scheme = "http" if context is None else "https"
        self._members = [f"{scheme}://{endpoint}" for endpoint in access.endpoints]
        self._member = 0
        self._clock = clock
        self._client = httpx2.AsyncClient(
            verify=context if context is not None else False,
            timeout=httpx2.Timeout(CALL_REAL_S),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=8),
            trust_env=False,
        )

    async def close(self) -> None:
        """Let every connection go."""
        await self._client.aclose()

    def move_on(self) -> None:
        """Ask the next member from now on."""
        self._member = (self._member + 1) % len(self._members)

    async def call(self, path: str, body: Any, reply: type[T], *, again: bool = True) -> T:
        """One request; `again` says that sending it twice does no harm. Raises OperationFault."""
        fault: OperationFault | None = None
        for _ in range(max(CALL_TRIES, len(self._members))):
            url = self._members[self._member] + path
            try:
                answer = await self._post(url, body)
                return _decode(_checked(answer.status_code, answer.content), reply)
            except _BROKEN as error:
                fault = OperationFault(f"etcd at {url}: {error or type(error).__name__}")
                self.move_on()
                if not again and not isinstance(error, _UNSENT):
                    raise fault from error
            except EtcdSays as says:
                if not again or not says.retryable or says.not_found or says.out_of_range:
                    raise
                fault = says
                self.move_on()
        assert fault is not None
        raise fault

    async def _post(self, url: str, body: Any) -> httpx2.Response:
        """httpx's own timeouts bound single reads and writes; this one bounds the whole."""
        try:
            async with self._clock.real_timeout(CALL_REAL_S):
                return await self._client.post(url, content=msgspec.json.encode(body))
        except TimeoutError as error:
            raise httpx2.ReadTimeout("no answer in time") from error

    @contextlib.asynccontextmanager
    async def watch(self, body: Any) -> AsyncIterator[AsyncIterator[Watched]]:
        """An open watch at the present member. Raises OperationFault, moved on to the next."""
        url = self._members[self._member] + "/v3/watch"
        request = self._client.build_request(
            "POST",
            url,
            content=msgspec.json.encode(body),
            headers=_NEEDS_LEADER,
            timeout=httpx2.Timeout(CALL_REAL_S, read=None),
        )
        try:
            async with self._clock.real_timeout(CALL_REAL_S):
                response = await self._client.send(request, stream=True)
        except (*_BROKEN, TimeoutError) as error:
            self.move_on()
            raise OperationFault(f"etcd at {url}: {error or type(error).__name__}") from error
        try:
            yield _messages(response)
        finally:
            with contextlib.suppress(httpx2.TransportError):
                await response.aclose()


async def _messages(response: httpx2.Response) -> AsyncIterator[Watched]:
    """One message a line. Raises OperationFault when the stream breaks or says no."""
    if response.status_code != 200:
        _checked(response.status_code, await response.aread())
    rest = b""
    try:
        async for piece in response.aiter_raw():
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > WATCH_LINE_BYTES_MAX:
                raise OperationFault("etcd sent a line without an end")
            for line in lines:
                message = _decode(line, WatchLine)
                if message.result is None:
                    raise OperationFault(f"etcd's watch: {message.error}")
                yield message.result
    except (*_BROKEN, httpx2.StreamError) as error:
        raise OperationFault(f"etcd's watch: {error or type(error).__name__}") from error


def _checked(status: int, content: bytes) -> bytes:
    if status == 200:
        return content
    try:
        fault = msgspec.json.decode(content, type=Fault)
    except (msgspec.DecodeError, ValueError, RecursionError):
        fault = Fault(f"status {status}", 14)
    raise EtcdSays(fault)


def _decode(content: bytes, reply: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=reply, strict=False)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise OperationFault(f"etcd's answer: {error}") from error
