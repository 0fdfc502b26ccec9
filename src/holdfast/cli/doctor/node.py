"""A node: what its owner would want to know before asking anybody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from holdfast.cli.doctor import links, place, trust
from holdfast.cli.doctor.finding import Finding, bad, note, ok
from holdfast.crypto.certinfo import cert_info
from holdfast.errors import HoldfastError, PeerFault
from holdfast.limits.doctor import HQ_SILENT_S_MAX, REPORT_AGE_S_MAX
from holdfast.logic.fleet.model import SlotRecord, Tier
from holdfast.node import membership
from holdfast.node.home import Home, Member, Report
from holdfast.rim.clock import Clock
from holdfast.rim.https_client import fetch_unverified_root
from holdfast.rim.ports import answers
from holdfast.rim.process import alive, descendants
from holdfast.wire.hq import Desired, RootReply, Standing
from holdfast.wire.records import Revocations
from holdfast.wire.signed import Type, decode_body


async def examine(directory: Path, clock: Clock) -> tuple[str, list[Finding]]:
    """Title and findings. Raises UsageError when it has not joined."""
    home = Home(directory)
    member = home.member()
    assert member is not None, "it is a node's directory"
    now, report = clock.wall(), home.report()
    desired = home.memory().desired
    skews = links.Skews()
    found = list(_agent(report, member, now))
    found += await place.place(directory, _secrets(home))
    found += place.descriptors(_role_pid(report))
    chain = home.chain()
    found += trust.leaf(chain[0], now)
    step = "tell the operator: holdfast hq request, then the root signs"
    found += trust.intermediate(chain[1], now, step)
    identity = (home.chain_file, home.key_file)
    found += await links.hq_link(member.hq, home.roots(), identity, clock, skews)
    found += await _by_headquarters(home, member, clock)
    found += trust.revocations(_listed(desired), now)
    servers = _peers(desired, member)
    found += await links.server_links(servers, home.roots(), clock, skews)
    found += await _own_port(member, report, clock)
    if desired is not None:
        me = links.Server(member.name, member.node, _told(member, report))
        found += await links.names([me], desired.resolvers, _domain(chain[0]))
    found += skews.findings()
    return f"node {member.name} in {directory}", found


def _agent(report: Report | None, member: Member, now: float) -> Iterator[Finding]:
    """Whether it runs, serves and hears from headquarters."""
    if report is None or not alive(report.pid):
        step = "start it: holdfast node run, or holdfast service install"
        yield bad("agent", "does not run", step)
        return
    if report.phase == "retired":
        step = "headquarters replaced it: holdfast uninstall, and join anew to help again"
        yield bad("agent", "this node is retired", step)
    elif report.phase != "serving":
        yield bad("agent", f"its role is {report.phase}, not serving", "read its log")
    elif now - report.written_at > REPORT_AGE_S_MAX:
        text = f"has written no status for {now - report.written_at:.0f} s"
        yield bad("agent", text, "it hangs, or the clock was stepped: restart it")
    else:
        yield ok("agent", f"process {report.pid} serves")
    silent_s = now - report.hq_heard_at
    if report.phase == "serving" and silent_s > HQ_SILENT_S_MAX:
        since = f"for {silent_s / 60:.0f} minutes" if report.hq_heard_at else "since it started"
        step = "see the link to headquarters; it goes on serving from its last orders"
        yield bad("orders", f"headquarters was not heard {since}", step)
    if report.alerts_waiting:
        text = f"{report.alerts_waiting} alerts wait for headquarters"
        yield note("alerts", text, "they go out when it answers")


async def _by_headquarters(home: Home, member: Member, clock: Clock) -> list[Finding]:
    """How others see this node, and the roots that headquarters hands out."""
    hq = membership.connect(home, member, clock)
    try:
        offered = await hq.call("GET", "/v1/root", None, RootReply)
        found = list(trust.pins(home.roots(), clock.wall(), offered))
        standing = await hq.call("GET", "/v1/standing", None, Standing)
        return found + list(_standing(standing))
    except HoldfastError as error:
        if not isinstance(error, PeerFault):
            return list(trust.pins(home.roots(), clock.wall()))
        said = await _unverified_roots(member, clock)
        found = list(trust.pins(home.roots(), clock.wall(), said))
        return found + await _excluded(home, member, clock)
    finally:
        await hq.close()


async def _unverified_roots(member: Member, clock: Clock) -> RootReply | None:
    """What somebody at headquarters' address says its roots are: to compare, never to believe."""
    try:
        return await fetch_unverified_root(member.hq, clock)
    except HoldfastError:
        return None


async def _excluded(home: Home, member: Member, clock: Clock) -> list[Finding]:
    try:
        entry = await membership.exclusion(home, member, clock)
    except HoldfastError:
        return []
    if entry is None:
        return []
    step = "holdfast uninstall; ask the operator, then join with a new token in a new --dir"
    return [bad("standing", f"this node is revoked: {entry.reason}", step)]


def _standing(seen: Standing) -> Iterator[Finding]:
    """The public port as the other servers of its slots see it, who probe it."""
    if seen.tier is Tier.GREEN and not seen.witnesses:
        yield ok("public port", "the servers of its slots reach it", seen.name)
        return
    text = f"{seen.tier.value}: {seen.witnesses} servers of its slots cannot reach it"
    step = f"open {', '.join(seen.addresses) or 'its port'} in firewall and router, or --advertise"
    yield bad("public port", text, step, seen.name)


async def _own_port(member: Member, report: Report | None, clock: Clock) -> list[Finding]:
    told = _told(member, report)
    for address in told:
        if not await answers(address, clock):
            text = f"{address} does not answer from this machine"
            step = "behind a router that may be normal: what others see counts, see public port"
            return [note("own port", text, step)]
    return [ok("own port", ", ".join(told))] if told else []


def _told(member: Member, report: Report | None) -> tuple[str, ...]:
    return member.addresses or (report.addresses if report is not None else ())


def _domain(leaf: bytes) -> str:
    """The network's domain: a node's DNS name is its logical name below it."""
    return cert_info(leaf).dns.partition(".")[2]


def _secrets(home: Home) -> list[Path]:
    return [home.identity_file, home.key_file]


def _role_pid(report: Report | None) -> int:
    """The process that serves: the agent's child, or the agent while there is none."""
    if report is None or not alive(report.pid):
        return 0
    return next(iter(descendants(report.pid)), report.pid)


def _listed(desired: Desired | None) -> Revocations | None:
    if desired is None or desired.revocations is None:
        return None
    return decode_body(Type.REVOCATIONS, Revocations, desired.revocations.signed)


def _peers(desired: Desired | None, member: Member) -> list[links.Server]:
    """The other servers of its slots."""
    found: dict[str, links.Server] = {}
    for staple in desired.slots if desired is not None else ():
        record = decode_body(Type.SLOT_RECORD, SlotRecord, staple.signed)
        for seat in (*record.relays, *record.replicas):
            if seat.node != member.node:
                found[seat.name] = links.Server(seat.name, seat.node, seat.addresses)
    return [found[name] for name in sorted(found)]
