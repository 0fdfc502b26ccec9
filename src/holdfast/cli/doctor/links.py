"""Other machines, seen from here: key exchange, clock, version, names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from holdfast import __version__
from holdfast.cli.doctor.finding import Finding, bad, note, ok
from holdfast.errors import HoldfastError
from holdfast.limits.doctor import CERT_ENDS_DAYS_MIN, SKEW_S_MAX, SKEW_S_NOTED
from holdfast.rim.clock import Clock
from holdfast.rim.https_client import Identity, JsonClient
from holdfast.rim.probe import Seen, group_to_hq, look_at_server
from holdfast.rim.resolver import Resolver
from holdfast.rim.tls import ClientTls, Credentials
from holdfast.wire.hq import AboutReply

_DAY_S = 86_400


class Server(msgspec.Struct, frozen=True):
    """A server that a record names."""

    name: str
    node: bytes
    addresses: tuple[str, ...]


class Skews:
    """Clocks of others against ours, gathered link by link."""

    def __init__(self) -> None:
        self._by_name: dict[str, float] = {}

    def add(self, name: str, theirs: float | None, ours: float) -> None:
        if theirs is not None:
            self._by_name[name] = ours - theirs

    def findings(self) -> Iterator[Finding]:
        """Half of them decide whose clock is wrong: ours when most disagree with us alike."""
        if not self._by_name:
            yield note("clock", "nobody could be asked", "see the links below")
            return
        offsets = sorted(self._by_name.values())
        middle = offsets[len(offsets) // 2]
        text = f"{abs(middle):.1f} s {'ahead of' if middle > 0 else 'behind'} others"
        if abs(middle) > SKEW_S_MAX:
            yield bad(
                "clock", f"this clock is {text}", "set it: timedatectl set-ntp true, or chrony"
            )
        elif abs(middle) > SKEW_S_NOTED:
            yield note("clock", f"this clock is {text}", "keep it with NTP")
        else:
            yield ok("clock", f"within {max(abs(middle), 0.1):.1f} s of {len(offsets)} others")
        for name, offset in self._by_name.items():
            if abs(offset - middle) > SKEW_S_MAX:
                text = f"its clock is {abs(offset - middle):.0f} s off everybody's"
                yield bad("clock", text, "tell its owner to set it", name)


async def hq_link(
    addresses: Sequence[str],
    roots: Sequence[bytes],
    identity: Identity,
    clock: Clock,
    skews: Skews,
) -> list[Finding]:
    """Each address of headquarters."""
    found: list[Finding] = []
    own = Credentials.from_files(*identity) if isinstance(identity, tuple) else identity
    for address in addresses:
        client = JsonClient((address,), roots, identity, clock)
        try:
            group = await group_to_hq(address, ClientTls(roots, own, clock))
            asked = clock.wall()
            about = await client.call("GET", "/v1/about", None, AboutReply)
            skews.add(f"headquarters {address}", about.at, (asked + clock.wall()) / 2)
        except HoldfastError as error:
            step = "is it running, and does this machine reach it? then: holdfast doctor there"
            found.append(bad("link", f"headquarters does not answer: {error}", step, address))
            continue
        finally:
            await client.close()
        found += exchange(f"headquarters {address}", group)
        found += versions(f"headquarters {address}", about.version)
    return found


async def server_links(
    servers: Iterable[Server], roots: Sequence[bytes], clock: Clock, skews: Skews
) -> list[Finding]:
    """Each server of a record, at its first address."""
    looked = await asyncio.gather(*(_look(item, roots, clock, skews) for item in servers))
    return [finding for each in looked for finding in each]


async def _look(
    server: Server, roots: Sequence[bytes], clock: Clock, skews: Skews
) -> list[Finding]:
    last = "it has no address"
    for address in server.addresses:
        try:
            seen = await look_at_server(address, roots, clock)
        except HoldfastError as error:
            last = str(error)
            continue
        skews.add(server.name, seen.at, clock.wall() - seen.took_s / 2)
        return list(_judge(server, seen, clock.wall()))
    return [bad("link", f"does not answer: {last}", _ask_owner(), server.name)]


def _judge(server: Server, seen: Seen, now: float) -> Iterator[Finding]:
    if not seen.verified:
        text = "its certificate does not hold by this machine's clock, only by its own"
        yield bad("link", text, "set the clock that is wrong, see clock", server.name)
    if seen.node != server.node:
        text = f"another node answers at {seen.address}"
        yield bad("link", text, "do not trust that address; tell its owner", server.name)
        return
    yield from exchange(server.name, seen.group)
    yield from versions(server.name, seen.version)
    days = (seen.not_after - now) / _DAY_S
    if seen.verified and days < CERT_ENDS_DAYS_MIN:
        text = f"its certificate ends in {days:.1f} days"
        yield bad("certificate", text, "its agent cannot renew: run doctor there", server.name)


def exchange(name: str, group: str) -> Iterator[Finding]:
    """The key exchange of one link."""
    if "MLKEM" in group:
        yield ok("link", f"{group}, post-quantum", name)
    else:
        text = f"{group}, not post-quantum"
        step = "needs OpenSSL 3.5 under Python's ssl on this side; contents are sealed beneath"
        yield note("link", text, step, name)


def versions(name: str, version: str) -> Iterator[Finding]:
    """Whether another runs what we run."""
    if version and version != __version__:
        text = f"runs {version}, this is {__version__}"
        yield note("version", text, "update the older one when it suits", name)


async def names(servers: Iterable[Server], resolvers: Sequence[str], domain: str) -> list[Finding]:
    """What DNS answers, against the records."""
    resolver = Resolver(resolvers)
    wanted = list(servers)
    asked = await asyncio.gather(*(_name(resolver, item, domain) for item in wanted))
    wrong = [finding for finding in asked if finding is not None]
    if wanted and not wrong:
        return [ok("dns", f"as the records say, for {len(wanted)} of {len(wanted)} names")]
    return wrong


async def _name(resolver: Resolver, server: Server, domain: str) -> Finding | None:
    try:
        found = await resolver.resolve(server.name, domain)
    except HoldfastError as error:
        step = "does headquarters run, and is its DNS port open from here, UDP and TCP?"
        return bad("dns", str(error), step, server.name)
    if not found.addresses:
        step = "headquarters writes it when the server is seated: holdfast hq servers"
        return bad("dns", "has no answer", step, server.name)
    answer, record = ", ".join(sorted(found.addresses)), ", ".join(sorted(server.addresses))
    if set(found.addresses) != set(server.addresses) or found.node not in (None, server.node):
        text = f"DNS says {answer or 'nothing'}, the record {record}"
        step = "wait a minute (TTL) and look again; if it stays: holdfast doctor at headquarters"
        return bad("dns", text, step, server.name)
    return None


def _ask_owner() -> str:
    return "ask its owner; the operator sees more: holdfast hq servers"
