"""The stub resolver against a DNS server on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dns.message
import dns.rcode
import dns.rrset
import pytest

from holdfast.crypto.pure import base32
from holdfast.errors import OperationFault
from holdfast.rim.resolver import Resolved, Resolver

NODE = bytes(range(32))
ZONE = {
    ("_holdfast._tcp.relay-eu-1.hf.internal.", "SRV"): [
        "10 0 4402 relay-eu-1b.hf.internal.",
        "0 0 4401 relay-eu-1.hf.internal.",
    ],
    ("relay-eu-1.hf.internal.", "A"): ["127.1.2.3"],
    ("relay-eu-1b.hf.internal.", "AAAA"): ["::1"],
    ("relay-eu-1.hf.internal.", "TXT"): ['"v=1"', f'"node={base32(NODE)}"'],
    ("odd.hf.internal.", "TXT"): ['"node=short"', '"node=\\255"'],
}


class Zone(asyncio.DatagramProtocol):
    """Answers from `ZONE`; nothing at all for names under `silent.`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text(), question.rdtype.name
        if name.startswith("silent."):
            return
        reply = dns.message.make_response(query)
        rows = ZONE.get((name, kind))
        if rows:
            reply.answer.append(dns.rrset.from_text_list(name, 60, "IN", kind, rows))
        elif not any(known == name for known, _ in ZONE):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(reply.to_wire(), addr)  # type: ignore[attr-defined]


@asynccontextmanager
async def zone() -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Zone, local_addr=("127.0.0.1", 0))
    yield "127.0.0.1:{}".format(transport.get_extra_info("sockname")[1])
    transport.close()


def test_service_addresses_and_node() -> None:
    """Seed 004 §2.3: the logical name leads to the current instance."""

    async def main() -> None:
        async with zone() as server:
            found = await Resolver([server]).resolve("relay-eu-1", "hf.internal")
            assert found == Resolved(("127.1.2.3:4401", "[::1]:4402"), NODE)

    asyncio.run(main())


def test_unknown_names_and_odd_texts_say_nothing() -> None:
    async def main() -> None:
        async with zone() as server:
            resolver = Resolver([server])
            assert await resolver.resolve("nobody", "hf.internal") == Resolved()
            assert await resolver.resolve("odd", "hf.internal") == Resolved()

    asyncio.run(main())


def test_silence_is_an_operation_fault() -> None:
    async def main() -> None:
        async with zone() as server:
            with pytest.raises(OperationFault, match="DNS does not answer"):
                await Resolver([server], lookup_s=0.2).resolve("silent", "hf.internal")

    asyncio.run(main())


def test_a_dead_first_server_is_passed_over() -> None:
    async def main() -> None:
        async with zone() as server:
            found = await Resolver(["127.0.0.1:1", server]).resolve("relay-eu-1", "hf.internal")
            assert found.node == NODE

    asyncio.run(main())
