"""Headquarters keeps a name server that others run at what its zone says (seed 004 §2.3, §7.3)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.hq.headquarters import DOMAIN, ENTROPY, Operator, make_home, make_root, run, serving

from holdfast.errors import UsageError
from holdfast.hq.audit import audit_rows
from holdfast.hq.main import Headquarters
from holdfast.limits import DNS_TTL_S
from holdfast.logic.audit import export_line
from holdfast.rim.clock import SystemClock
from holdfast.rim.dns.records import Entry
from holdfast.rim.dns.zone import Change
from holdfast.rim.resolver import Resolver
from holdfast.sim.knot import Knot

pytestmark = pytest.mark.system
OLD, NEW = b"\x01" * 32, b"\x02" * 32


async def until_at(resolver: Resolver, name: str, host: str) -> None:
    async with asyncio.timeout(DNS_TTL_S):
        while True:
            found = await resolver.resolve(name, DOMAIN)
            if found.addresses[:1] == (f"{host}:7443",):
                return
            await asyncio.sleep(0.05)


def test_a_replaced_server_is_found_within_the_ttl_at_knot(tmp_path: Path) -> None:
    """Of a whole provider too: what changes together travels together."""
    knot = Knot(tmp_path / "knot", DOMAIN, SystemClock(), ENTROPY)
    (tmp_path / "hq").mkdir()
    (tmp_path / "hq" / "tsig.key").write_text(knot.secret)
    resolver = Resolver((knot.access.server,))

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        zone = hq.parts.zone
        names = [f"relay-{n}" for n in range(20)]
        await zone.replace_all([Change(Entry(name, ("10.0.0.1",), 7443, OLD)) for name in names])
        await asyncio.sleep(1.0)  # nobody answers there yet
        await knot.start()
        try:
            await until_at(resolver, "relay-19", "10.0.0.1")
            moved = [Change(Entry(name, ("10.0.0.2",), 7443, NEW), OLD) for name in names]
            await zone.replace_all(moved)
            await until_at(resolver, "relay-19", "10.0.0.2")
            for name in names:
                assert (await resolver.resolve(name, DOMAIN)).node == NEW
        finally:
            await knot.stop()
        lines = [export_line(data) async for data in audit_rows(hq.parts.store)]
        told = [line.verb for line in lines if line.verb.startswith("dns.")]
        assert told[:2] == ["dns.behind", "dns.current"]

    run(scenario, tmp_path, dns_primary=knot.access)


def test_a_missing_key_is_said_before_anything_serves(tmp_path: Path) -> None:
    async def main() -> None:
        access: Any = Knot(tmp_path / "knot", DOMAIN, SystemClock(), ENTROPY).access
        home = make_home(tmp_path / "hq", make_root(), dns_primary=access)
        with pytest.raises(UsageError, match=r"tsig\.key is missing"):
            async with serving(home):
                raise AssertionError("it started")
        wrong = msgspec.structs.replace(
            home.config(), dns_primary=msgspec.structs.replace(access, algorithm="rot13")
        )
        with pytest.raises(UsageError, match="hmac-sha256"):
            wrong.check()

    asyncio.run(main())
