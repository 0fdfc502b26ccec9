"""Publishing to a real name server, Knot DNS (RFC 2136, RFC 8945; seed 004 §2.3, §7.3, §7.4)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from pathlib import Path

import dns.asyncresolver
import dns.resolver
import msgspec
import pytest

from holdfast.errors import OperationFault, UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.dns.access import Access
from holdfast.rim.dns.primary import Primary, Publisher
from holdfast.rim.dns.records import Entry
from holdfast.rim.dns.zone import Change, Zone
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.resolver import Resolver
from holdfast.sim.knot import Knot

DOMAIN = "hold.example"
CLOCK = SystemClock()
ONE, TWO, NEW = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32


class Scene:
    def __init__(self, home: Path, knot: Knot, zone: Zone) -> None:
        self.home = home
        self.knot = knot
        self.zone = zone
        self.said: list[str] = []
        self.resolver = Resolver((knot.access.server,))

    def publisher(self, zone: Zone | None = None, epoch: int = 0) -> Publisher:
        primary = Primary(self.knot.access, self.knot.secret, DOMAIN)
        return Publisher(zone or self.zone, primary, CLOCK, self._hear, epoch=epoch)

    async def _hear(self, trouble: str) -> None:
        self.said.append(trouble)

    async def addresses(self, name: str) -> tuple[str, ...]:
        return (await self.resolver.resolve(name, DOMAIN)).addresses

    async def host(self, name: str) -> str:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], self.knot.port
        answer = await resolver.resolve(f"{name}.{DOMAIN}.", "A")
        return str(answer[0])


def play(home: Path, scenario: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        store = await SqliteStore.open(home / "control.db", CLOCK)
        zone = Zone(store, CLOCK, DOMAIN, ["127.0.0.1"])
        knot = Knot(home / "knot", DOMAIN, CLOCK, SystemEntropy())
        await zone.start()
        await knot.start()
        try:
            await scenario(Scene(home, knot, zone))
        finally:
            await knot.stop()
            await zone.stop()
            await store.close()

    asyncio.run(main())


def entry(name: str, host: str, node: bytes) -> Change:
    return Change(Entry(name, (host,), 7443, node))


async def soon(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def test_names_are_published_moved_and_withdrawn(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        zone, publisher = scene.zone, scene.publisher()
        await zone.replace_all([entry("relay-1", "10.0.0.1", ONE), entry("relay-2", "::2", TWO)])
        assert await publisher.publish(zone.view) == 4  # host and service of two names
        assert await scene.addresses("relay-1") == ("10.0.0.1:7443",)
        assert await scene.addresses("relay-2") == ("[::2]:7443",)
        assert await publisher.publish(zone.view) == 0, "it is read, and nothing differs"
        await zone.replace("relay-1", ["10.0.0.9"], 7443, NEW, ONE)
        await zone.remove("relay-2")
        assert await publisher.publish(zone.view) == 3
        assert await scene.addresses("relay-1") == ("10.0.0.9:7443",)
        assert await scene.addresses("relay-2") == ()
        assert await scene.host("www") == "127.0.0.9", "a name of somebody else stays"
        assert await scene.host("ns1") == "127.0.0.1"

    play(tmp_path, scenario)


def test_it_follows_the_zone_and_mends_what_others_did(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        zone, publisher = scene.zone, scene.publisher()
        running = asyncio.create_task(publisher.run())
        await zone.replace_all([entry(f"relay-{n}", "10.0.0.1", ONE) for n in range(400)])

        async def moved(host: str) -> bool:
            return (await scene.addresses("relay-399"))[:1] == (f"{host}:7443",)

        await soon(lambda: moved("10.0.0.1"))
        await scene.knot.stop()  # and the whole provider is lost meanwhile: one batch of names
        await zone.replace_all([entry(f"relay-{n}", "10.0.0.2", TWO) for n in range(400)])
        await soon(lambda: _said(scene))
        await scene.knot.start()
        await soon(lambda: moved("10.0.0.2"))
        await soon(lambda: _is_current(publisher, zone))
        assert scene.said[-1] == ""
        assert "does not answer" in scene.said[-2]
        running.cancel()

    play(tmp_path, scenario)


async def _said(scene: Scene) -> bool:
    return bool(scene.said) and bool(scene.said[-1])


async def _is_current(publisher: Publisher, zone: Zone) -> bool:
    return publisher.current is zone.view


def test_a_deposed_headquarters_changes_nothing(tmp_path: Path) -> None:
    """D25: who leads no more may still run; a restored one outranks its own past (D3)."""

    async def scenario(scene: Scene) -> None:
        old_store = await SqliteStore.open(tmp_path / "old.db", CLOCK)
        old = Zone(old_store, CLOCK, DOMAIN)
        await old.start()
        await old.replace("relay-1", ["10.0.0.1"], 7443, ONE)
        for number in range(5):
            await scene.zone.replace("relay-1", [f"10.0.1.{number}"], 7443, NEW)
        await scene.publisher().publish(scene.zone.view)
        late = scene.publisher(old)
        with pytest.raises(OperationFault, match="another headquarters is ahead"):
            await late.publish(old.view)
        assert await scene.addresses("relay-1") == ("10.0.1.4:7443",)
        restored = scene.publisher(old, epoch=1)
        await restored.publish(old.view)
        assert await scene.addresses("relay-1") == ("10.0.0.1:7443",)
        with pytest.raises(OperationFault, match="ahead"):
            await scene.publisher().publish(scene.zone.view)
        await old.stop()
        await old_store.close()

    play(tmp_path, scenario)


def test_two_that_write_at_once_leave_one_whole_copy(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        zone = scene.zone
        await zone.replace_all([entry(f"relay-{n}", "10.0.0.1", ONE) for n in range(50)])
        both = [scene.publisher().publish(zone.view) for _ in range(4)]
        assert sorted(await asyncio.gather(*both))[-1] == 100
        assert await scene.addresses("relay-49") == ("10.0.0.1:7443",)

    play(tmp_path, scenario)


def test_wrong_keys_are_the_operators_matter(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.zone.replace("relay-1", ["10.0.0.1"], 7443, ONE)
        access = scene.knot.access
        stranger = base64.b64encode(b"k" * 32).decode()
        for key_name, secret in ((access.key_name, stranger), ("nobody.", scene.knot.secret)):
            wrong = msgspec.structs.replace(access, key_name=key_name)
            publisher = Publisher(scene.zone, Primary(wrong, secret, DOMAIN), CLOCK, scene._hear)
            with pytest.raises(UsageError, match="key"):
                await publisher.publish(scene.zone.view)
        other = Primary(access, scene.knot.secret, "other.example")
        with pytest.raises(UsageError, match="zone"):
            await Publisher(scene.zone, other, CLOCK, scene._hear).publish(scene.zone.view)
        assert await scene.addresses("relay-1") == ()

    play(tmp_path, scenario)


def test_settings_that_cannot_work_are_refused() -> None:
    knot_access = {"server": "127.0.0.1:53", "key_name": "k.", "key_file": "f"}
    for wrong in ({"algorithm": "rot13"}, {"key_name": "a" * 70}):
        with pytest.raises(UsageError):
            Access(**{**knot_access, **wrong}).check()
    with pytest.raises(UsageError, match="base64"):
        Primary(Access(**knot_access), "not base64 at all!", DOMAIN)
