"""The embedded DNS server, asked by the real `dig` (seed 004 §2.3, §7.3; D25)."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.update
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.crypto.pure import base32
from holdfast.errors import OperationFault, UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.dns.records import Entry
from holdfast.rim.dns.server import CACHE_MAX, DnsServer, Responder
from holdfast.rim.dns.zone import Change, Zone
from holdfast.rim.resolver import Resolver

DOMAIN = "hold.example"
NODE_A, NODE_B = bytes(32), bytes([7] * 32)


async def dig(port: int, *words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "dig", "@127.0.0.1", "-p", str(port), "+tries=1", "+time=5", *words,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    return out.decode()


def status(text: str) -> tuple[str, set[str]]:
    """(rcode, flags) of dig's long form."""
    rcode = re.search(r"status: (\w+)", text)
    flags = re.search(r"flags: ([\w ]+);", text)
    assert rcode, text
    assert flags, text
    return rcode[1], set(flags[1].split())


Scenario = Callable[[Zone, int], Awaitable[None]]


def serve(scenario: Scenario) -> None:
    """Run `scenario` against a zone of two servers, served on a real port."""

    async def main() -> None:
        store = await SqliteStore.open(None, SystemClock())
        zone = Zone(store, SystemClock(), DOMAIN, ["127.0.0.1"], ttl_s=30)
        await zone.start()
        await zone.replace("relay-eu-001", ["127.1.0.1"], 4001, NODE_A)
        await zone.replace("relay-eu-002", ["127.1.0.2", "::1"], 4002, NODE_B)
        server = DnsServer(zone, SystemClock())
        await server.start("127.0.0.1", 0)
        try:
            await scenario(zone, server.port)
        finally:
            await server.stop()
            await zone.stop()
            await store.close()

    asyncio.run(main())


def test_records_of_a_server() -> None:
    async def scenario(zone: Zone, port: int) -> None:
        name = f"relay-eu-001.{DOMAIN}"
        assert await dig(port, "+short", name, "A") == "127.1.0.1\n"
        assert await dig(port, "+short", f"relay-eu-002.{DOMAIN}", "AAAA") == "::1\n"
        assert await dig(port, "+short", name, "TXT") == f'"node={base32(NODE_A)}"\n'
        service = f"_holdfast._tcp.{name}"
        assert await dig(port, "+short", service, "SRV") == f"0 0 4001 {name}.\n"
        text = await dig(port, service, "SRV")
        assert status(text) == ("NOERROR", {"qr", "aa", "rd"})
        assert "ADDITIONAL: 2" in text, "the address rides along (and EDNS)"
        ttls = {int(ttl) for ttl in re.findall(r"\s(\d+)\s+IN\s+(?:A|SRV)\s", text)}
        assert ttls == {30}
        assert (await dig(port, "+short", DOMAIN, "SOA")).startswith(f"ns1.{DOMAIN}. hostmaster.")
        assert await dig(port, "+short", DOMAIN, "NS") == f"ns1.{DOMAIN}.\n"
        assert await dig(port, "+short", f"ns1.{DOMAIN}") == "127.0.0.1\n"

    serve(scenario)


def test_names_in_any_case() -> None:
    async def scenario(zone: Zone, port: int) -> None:
        text = await dig(port, "ReLaY-eU-001.HOLD.eXample", "A")
        assert "ReLaY-eU-001.HOLD.eXample." in text, "the case of the question comes back (0x20)"
        assert "127.1.0.1" in text

    serve(scenario)


def test_no_such_name_and_no_such_record() -> None:
    async def scenario(zone: Zone, port: int) -> None:
        missing = await dig(port, f"relay-eu-999.{DOMAIN}", "A")
        assert status(missing) == ("NXDOMAIN", {"qr", "aa", "rd"})
        assert re.search(r"\s10\s+IN\s+SOA\s", missing), "negative answers are soon forgotten"
        for name, kind in [
            (f"relay-eu-001.{DOMAIN}", "AAAA"),
            (f"relay-eu-001.{DOMAIN}", "MX"),
            (f"_tcp.relay-eu-001.{DOMAIN}", "A"),
            (DOMAIN, "A"),
        ]:
            text = await dig(port, name, kind)
            assert status(text)[0] == "NOERROR", (name, kind)
            assert "ANSWER: 0, AUTHORITY: 1" in text, (name, kind)

    serve(scenario)


def test_other_zones_updates_and_transfers_are_refused() -> None:
    async def scenario(zone: Zone, port: int) -> None:
        assert status(await dig(port, "example.com", "A"))[0] == "REFUSED"
        assert status(await dig(port, "example", "A"))[0] == "REFUSED"
        assert status(await dig(port, "CH", "version.bind", "TXT"))[0] == "REFUSED"
        assert status(await dig(port, "+tcp", f"relay-eu-001.{DOMAIN}", "ANY"))[0] == "NOERROR"
        assert "Transfer failed" in await dig(port, DOMAIN, "AXFR")
        assert "BADVERS" in await dig(port, "+edns=1", "+noednsneg", f"ns1.{DOMAIN}", "A")
        update = dns.update.UpdateMessage(DOMAIN)
        update.replace("relay-eu-001", 30, "A", "127.9.9.9")
        reply = Responder(zone).respond(update.to_wire(), datagram=True)
        assert reply is not None
        assert dns.message.from_wire(reply).rcode() == dns.rcode.REFUSED
        notify = dns.message.make_query(DOMAIN, "SOA")
        notify.set_opcode(dns.opcode.NOTIFY)
        reply = Responder(zone).respond(notify.to_wire(), datagram=True)
        assert reply is not None
        assert dns.message.from_wire(reply).rcode() == dns.rcode.NOTIMP
        assert await dig(port, "+short", f"relay-eu-001.{DOMAIN}") == "127.1.0.1\n"

    serve(scenario)


def test_what_does_not_fit_a_datagram_comes_over_tcp() -> None:
    async def scenario(zone: Zone, port: int) -> None:
        many = [f"127.2.{n // 250}.{n % 250 + 1}" for n in range(400)]
        await zone.replace("wide", many, 4003, NODE_A)
        name = f"wide.{DOMAIN}"
        for words in (["+noedns"], ["+bufsize=512"], ["+bufsize=65000"]):
            text = await dig(port, "+ignore", *words, name, "A")
            assert "tc" in status(text)[1], words
            assert "ANSWER: 0" in text
        found = await dig(port, "+short", name, "A")
        assert sorted(found.split()) == sorted(many), "dig came back over TCP by itself"
        await zone.replace("some", many[:40], 4003, NODE_A)
        assert "tc" in status(await dig(port, "+noedns", "+ignore", f"some.{DOMAIN}"))[1]
        assert "tc" not in status(await dig(port, "+ignore", f"some.{DOMAIN}"))[1]

    serve(scenario)


def test_healing_moves_a_name() -> None:
    """Seed 004 §4.3: the name resolves to the new node, at once, and only from where it was."""

    async def scenario(zone: Zone, port: int) -> None:
        name = f"relay-eu-001.{DOMAIN}"
        resolver = Resolver([f"127.0.0.1:{port}"])
        before = await resolver.resolve("relay-eu-001", DOMAIN)
        assert (before.addresses, before.node) == (("127.1.0.1:4001",), NODE_A)
        serial = (await dig(port, "+short", DOMAIN, "SOA")).split()[2]
        await zone.replace("relay-eu-001", ["127.3.0.1"], 4009, NODE_B, previous=NODE_A)
        after = await resolver.resolve("relay-eu-001", DOMAIN)
        assert (after.addresses, after.node) == (("127.3.0.1:4009",), NODE_B)
        assert int((await dig(port, "+short", DOMAIN, "SOA")).split()[2]) > int(serial)
        with pytest.raises(OperationFault, match="does not point"):
            await zone.replace("relay-eu-001", ["127.4.0.1"], 4010, NODE_A, previous=NODE_A)
        await zone.replace("relay-eu-001", ["127.3.0.1"], 4009, NODE_B, previous=NODE_A)
        assert await dig(port, "+short", name) == "127.3.0.1\n"
        await zone.remove("relay-eu-001")
        assert status(await dig(port, name))[0] == "NXDOMAIN"

    serve(scenario)


def test_a_restarted_or_second_headquarters_serves_the_same_zone(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "control.db"
        clock = SystemClock()
        first = await SqliteStore.open(path, clock)
        zone = Zone(first, clock, DOMAIN)
        await zone.start()
        changes = [
            Change(Entry(f"relay-eu-{n:03}", (f"127.1.0.{n % 250 + 1}",), 4000, NODE_A), b"")
            for n in range(200)
        ]
        await zone.replace_all(changes)
        await zone.replace_all(changes)  # says so already
        second = await SqliteStore.open(path, clock)
        reader = Zone(second, clock, DOMAIN)
        await reader.start()
        assert reader.find("relay-eu-199") == changes[-1].entry
        await zone.replace("relay-eu-199", ["127.9.0.1"], 4000, NODE_B)
        async with asyncio.timeout(10):
            while reader.find("relay-eu-199") == changes[-1].entry:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        with pytest.raises(OperationFault):
            await reader.replace("relay-eu-199", ["127.9.0.2"], 4000, NODE_B, previous=NODE_A)
        with pytest.raises(OperationFault):
            await reader.replace("relay-eu-001", ["127.9.0.2"], 4000, NODE_B, previous=b"")
        await asyncio.gather(zone.stop(), reader.stop())
        await asyncio.gather(first.close(), second.close())

    asyncio.run(main())


def test_what_dns_cannot_carry_is_refused() -> None:
    async def scenario(zone: Zone, port: int) -> None:
        for name, addresses, at in [
            ("two.labels", ["127.0.0.1"], 1),
            ("", ["127.0.0.1"], 1),
            ("-x", ["127.0.0.1"], 1),
            ("x" * 64, ["127.0.0.1"], 1),
            ("RELAY", ["127.0.0.1"], 1),
            ("relay", ["localhost"], 1),
            ("relay", [], 1),
            ("relay", ["127.0.0.1"], 0),
            ("relay", ["127.0.0.1"], 65_536),
        ]:
            with pytest.raises(UsageError):
                await zone.replace(name, addresses, at, NODE_A)

    serve(scenario)


def test_conversation_over_tcp() -> None:
    """Several questions on one connection; garbage is told so; a huge length is cut by the end."""

    async def scenario(zone: Zone, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in (1, 2, 3):
            query = dns.message.make_query(f"relay-eu-00{number}.{DOMAIN}", "A").to_wire()
            writer.write(len(query).to_bytes(2, "big") + query)
            length = int.from_bytes(await reader.readexactly(2), "big")
            reply = dns.message.from_wire(await reader.readexactly(length))
            assert len(reply.answer) == (0 if number == 3 else 1)
        writer.write(b"\x00\x0d" + b"\xab\xcd" + bytes(2) + b"\x00\x01" + bytes(6) + b"\xff")
        length = int.from_bytes(await reader.readexactly(2), "big")
        header = await reader.readexactly(length)
        assert header[:2] == b"\xab\xcd"
        assert header[3] & 0xF == dns.rcode.FORMERR
        writer.write(b"\x00\x00")
        assert await reader.read() == b"", "nothing sensible: the connection ends"
        writer.close()

    serve(scenario)


def _responder() -> Responder:
    async def main() -> Responder:
        store = await SqliteStore.open(None, SystemClock())
        zone = Zone(store, SystemClock(), DOMAIN, ["127.0.0.1"])
        await zone.start()
        await zone.replace("relay-eu-001", ["127.1.0.1"], 4001, NODE_A)
        await zone.stop()
        await store.close()
        return Responder(zone)

    return asyncio.run(main())


RESPONDER = _responder()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_garbage_is_answered_or_ignored(data: bytes, datagram: bool) -> None:
    reply = RESPONDER.respond(data, datagram=datagram)
    assert reply is None or (reply[:2] == data[:2] and reply[2] & 0x80)


def test_mutated_questions_never_crash_it() -> None:
    """Ten thousand packets one to eight bytes away from a good one, of every opcode and section."""
    chance = random.Random(20_261_121)
    update = dns.update.UpdateMessage(DOMAIN)
    update.present("relay-eu-001")
    update.replace("relay-eu-001", 30, "A", "127.9.9.9")
    seeds = [
        dns.message.make_query(f"relay-eu-001.{DOMAIN}", "A", use_edns=0).to_wire(),
        dns.message.make_query(f"_holdfast._tcp.relay-eu-001.{DOMAIN}", "SRV").to_wire(),
        dns.message.make_query(DOMAIN, "ANY", want_dnssec=True).to_wire(),
        update.to_wire(),
    ]
    answered = 0
    for _ in range(10_000):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        reply = RESPONDER.respond(bytes(data), datagram=chance.random() < 0.5)
        if reply is not None:
            answered += 1
            dns.message.from_wire(reply, ignore_trailing=False)
    assert 1_000 < answered < 10_000
    assert len(RESPONDER._cache) <= CACHE_MAX


def test_replies_are_never_answered() -> None:
    """Two servers that answer each other's answers would never stop."""
    query = dns.message.make_query(DOMAIN, "SOA")
    reply = RESPONDER.respond(query.to_wire(), datagram=True)
    assert reply is not None
    assert RESPONDER.respond(reply, datagram=True) is None
