"""The embedded authoritative DNS server: one port, UDP and TCP.

Garbage in gives FORMERR or silence out, never an exception: whatever a packet holds, the loop goes
on. A reply that does not fit a datagram is cut and marked, and the asker comes back over TCP.
Replies are kept by the exact bytes of the question until the zone changes: a flood of the same
question costs a dictionary lookup.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode

from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock
from holdfast.rim.dns.records import UDP_BYTES_MAX, UDP_BYTES_PLAIN, View, answer
from holdfast.rim.dns.zone import Zone

TCP_CONNECTIONS_MAX: Final = 128
TCP_IDLE_S: Final = 10.0
"""Real seconds (RFC 7766 §6.2.3 asks for a few)."""
TCP_QUERIES_MAX: Final = 256
CACHE_MAX: Final = 4_096
_HEADER_BYTES: Final = 12
_PORT_TRIES: Final = 32
_MALFORMED: Final = (dns.exception.DNSException, ValueError, IndexError, OverflowError)


class Responder:
    """Bytes in, bytes out."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._view: View | None = None
        self._cache: dict[tuple[bytes, bool], bytes] = {}

    def respond(self, data: bytes, *, datagram: bool) -> bytes | None:
        """The reply to one message as it travelled; None when silence is right."""
        if len(data) < _HEADER_BYTES or data[2] & 0x80:
            return None  # too short to answer, or itself a reply: answering would make loops
        view = self._zone.view
        if view is not self._view:
            self._view = view
            self._cache.clear()
        key = (data[2:], datagram)
        reply = self._cache.get(key)
        if reply is None:
            reply = _reply(data, view, datagram)[2:]
            if len(self._cache) >= CACHE_MAX:
                self._cache.clear()
            self._cache[key] = reply
        return data[:2] + reply


def _reply(data: bytes, view: View, datagram: bool) -> bytes:
    try:
        query = dns.message.from_wire(data, ignore_trailing=False, one_rr_per_rrset=False)
    except _MALFORMED:
        return _bare_reply(data, dns.rcode.FORMERR)
    reply = answer(query, view)
    limit = 65_535
    if datagram:
        limit = min(max(query.payload, UDP_BYTES_PLAIN), UDP_BYTES_MAX)
        limit = limit if query.edns >= 0 else UDP_BYTES_PLAIN
    try:
        return reply.to_wire(max_size=limit)
    except dns.exception.TooBig:
        for section in (reply.answer, reply.authority, reply.additional):
            section.clear()
        reply.flags |= dns.flags.TC
        return reply.to_wire(max_size=limit)
    except _MALFORMED:
        return _bare_reply(data, dns.rcode.SERVFAIL)


def _bare_reply(data: bytes, rcode: dns.rcode.Rcode) -> bytes:
    """A header that says no, for a question that could not be read."""
    flags = 0x8000 | (data[2] & 0x79) << 8 | int(rcode)
    return data[:2] + flags.to_bytes(2, "big") + bytes(8)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        reply = self._responder.respond(data, datagram=True)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)


class DnsServer:
    """Serves one zone at one address."""

    def __init__(self, zone: Zone, clock: Clock) -> None:
        self._responder = Responder(zone)
        self._clock = clock
        self._tcp: asyncio.Server | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen on UDP and TCP; port 0 finds one that is free for both. Raises OperationFault."""
        loop = asyncio.get_running_loop()
        for attempt in range(_PORT_TRIES):
            try:
                self._tcp = await asyncio.start_server(self._converse, host, port)
                self.port = self._tcp.sockets[0].getsockname()[1]
                self._udp, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self._responder), local_addr=(host, self.port)
                )
                return
            except OSError as error:
                if self._tcp is not None:
                    self._tcp.close()
                if port or attempt == _PORT_TRIES - 1:
                    why = f"cannot serve DNS on {host}:{port}: {error.strerror}"
                    raise OperationFault(why, retryable=False) from error

    async def stop(self) -> None:
        """Close both doors and every conversation."""
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
            for writer in tuple(self._connections):
                writer.close()
            await self._tcp.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One TCP connection: questions with a two-byte length, answered in turn."""
        if len(self._connections) >= TCP_CONNECTIONS_MAX:
            writer.close()
            return
        self._connections.add(writer)
        try:
            for _ in range(TCP_QUERIES_MAX):
                async with self._clock.real_timeout(TCP_IDLE_S):
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    data = await reader.readexactly(length)
                    reply = self._responder.respond(data, datagram=False)
                    if reply is None:
                        return
                    writer.write(len(reply).to_bytes(2, "big") + reply)
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            return
        finally:
            self._connections.discard(writer)
            writer.close()
