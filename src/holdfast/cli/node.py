"""`holdfast node`: a server of the network, from its token to its retirement."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Final

import cyclopts
import msgspec
from cyclopts import Parameter

from holdfast.cli.node_defer import defer
from holdfast.cli.output import emit
from holdfast.cli.service import clock_of, host_port, start_service_log, until_stopped
from holdfast.crypto.pure import base32
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.logic.fleet.model import ACCESS, SlotRecord
from holdfast.node import membership
from holdfast.node.agent import Agent, StartRole
from holdfast.node.home import Home, Member, Report
from holdfast.node.role import RoleProcess
from holdfast.rim.clock import Clock, SystemClock
from holdfast.rim.cloud.account import TOKEN_VARIABLE
from holdfast.rim.entropy import Entropy, SystemEntropy
from holdfast.rim.files import lock_directory, read_file, remove_file
from holdfast.rim.log import LogForm, name_log
from holdfast.rim.ports import address_towards
from holdfast.rim.process import alive, holdfast_command
from holdfast.wire.address import join_address
from holdfast.wire.token import JoinToken, parse_token

JOIN_TRIES: Final = 5
JOIN_WAIT_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Real seconds between tries, times a jitter of 0.5 to 1.5."""
STANDBY_WAITS: Final = 3
"""Who stands by must be heard again within `STANDBY_SILENT_S`: it waits no longer than these."""
DEFAULT_LISTEN: Final = "0.0.0.0:7443"

Dir = Annotated[Path, Parameter(help="The node's own directory.", env_var="HOLDFAST_DIR")]
Json = Annotated[bool, Parameter(help="One JSON object as the last line.", negative="")]

_log = logging.getLogger("holdfast.node")
app = cyclopts.App(name="node", help_format="plaintext")
app.command(defer)


@app.command
def join(
    token: str,
    *,
    dir: Dir,
    listen: str = DEFAULT_LISTEN,
    advertise: str = "",
    provider: str = "",
    json: Json = False,
) -> None:
    """Join a network with a one-time token; then start it with `holdfast node run`.

    The node's keys are made here and stay here. Repeating a join that was cut off is safe.

    Parameters
    ----------
    token
        The line that starts with hfjoin1, or a file that holds it.
    listen
        host:port where this server will listen; every address of the machine by default.
    advertise
        host:port that clients are told, when it differs. Without it, and without a --listen of one
        address, it is the address from which this machine reaches headquarters.
    provider
        Who hosts this machine; headquarters believes its token first.
    """
    home = Home(dir)
    with lock_directory(dir, "an agent"):
        if home.member() is not None:
            raise UsageError(f"{dir} has joined already; run it with holdfast node run --dir {dir}")
        line = read_file(Path(token)) if not token.startswith("hfjoin1") else token.encode()
        if line is None:
            raise UsageError(f"no token and no file called {token!r}")
        member = asyncio.run(
            _join(home, line.decode(), listen, advertise, provider, SystemClock(), JOIN_TRIES)
        )
    told = member.addresses[0] if member.addresses else member.listen
    text = (
        f"joined as {member.name}, {member.role}; clients are told {told}\n"
        f"next: holdfast node run --dir {dir}"
    )
    emit(_about(member) | {"told": told}, as_json=json, text=text)


@app.command
def run(
    *,
    dir: Dir,
    token_file: Path | None = None,
    token: Annotated[str, Parameter(env_var=TOKEN_VARIABLE)] = "",
    listen: str = "",
    advertise: str = "",
    provider: str = "",
    time_scale: float = 1.0,
    log_level: str = "info",
    log: LogForm | None = None,
) -> int:
    """Run this node until stopped: its role, its reports, its renewals.

    A node that has not joined yet joins first, with a token or the one in --token-file, which is
    removed once it is spent. Ends with status 10 when headquarters has retired the node.

    Parameters
    ----------
    token_file
        File with a one-time token, for a first start.
    token
        The token itself, for a first start in a container; not secret once it is spent.
    listen
        host:port where to listen; remembered from the join.
    advertise
        host:port that clients are told, when it differs.
    provider
        Who hosts this machine.
    time_scale
        Elapsed seconds per real second; for drills.
    log_level
        debug, info, warning or error.
    log
        json or text; by default text on a terminal and json elsewhere.
    """
    start_service_log(log_level, log, "node")
    clock = clock_of(time_scale)
    home = Home(dir)
    with lock_directory(dir, "an agent"):
        secret = token or _token_in(token_file)
        life = _live(home, secret, token_file, listen, advertise, provider, clock)
        status = asyncio.run(until_stopped(life))
    return status or 0


def _token_in(path: Path | None) -> str:
    """What the file holds; empty when there is none, as after a first start."""
    data = read_file(path) if path is not None else None
    return data.decode("utf-8", "replace") if data else ""


async def _live(
    home: Home,
    token: str,
    token_file: Path | None,
    listen: str,
    advertise: str,
    provider: str,
    clock: Clock,
) -> int:
    member, first_role = home.member(), None
    if member is None:
        if not token:
            raise UsageError(
                f"{home.directory} has not joined a network; "
                "ask an operator for a token, then run holdfast node join"
            )
        where = listen or DEFAULT_LISTEN
        if _token(token).stands_by:
            first_role = await _role_that_waits(home, clock)
        member = await _join(home, token, where, advertise, provider, clock, None)
    else:
        member = _moved(home, member, listen, advertise)
    if token_file is not None:
        with contextlib.suppress(OSError):  # a secret that is mounted cannot be removed
            remove_file(token_file)
    name_log(member.name)
    scale = clock.scale

    def command(home: Home, member: Member) -> tuple[str, ...]:
        return role_command(home, member, member.listen, scale)

    agent = Agent(
        home,
        member,
        role_command=command,
        clock=clock,
        entropy=SystemEntropy(),
        first_role=first_role,
    )
    return await agent.run()


async def _role_that_waits(home: Home, clock: Clock) -> StartRole:
    """Start the role of a machine that stands by; what is given tells it what it is."""
    words = holdfast_command("relay", "wait", f"--dir={home.role_directory}")
    role = await RoleProcess.start(words, clock)

    async def begin(home: Home, member: Member) -> RoleProcess:
        await role.begin(role_options(home, member, member.listen, clock.scale))
        return role

    return begin


def _moved(home: Home, member: Member, listen: str, advertise: str) -> Member:
    """The member with what was said on the command line, and with this machine's present address
    where that is what clients are told. Remembered."""
    listen, advertise = listen or member.listen, advertise or member.advertise
    try:
        addresses: tuple[str, ...] = (told_address(listen, advertise, member.hq[0]),)
    except OperationFault as fault:
        _log.warning("clients are told the address of before: %s", fault)
        addresses = member.addresses
    moved = msgspec.structs.replace(member, listen=listen, advertise=advertise, addresses=addresses)
    if moved != member:
        home.save_member(moved)
    return moved


async def _join(
    home: Home,
    text: str,
    listen: str,
    advertise: str,
    provider: str,
    clock: Clock,
    tries: int | None,
) -> Member:
    """Join, again and again while HQ is out of reach: `tries` times, or for ever when None."""
    token = _token(text)
    entropy: Entropy = SystemEntropy()
    addresses = (told_address(listen, advertise, token.hq[0]),)
    failures = 0
    while True:
        try:
            if token.stands_by:
                _log.info("standing by until headquarters calls")
                await membership.stand_by(token, clock)
            return await membership.join(
                home,
                token,
                listen=listen,
                addresses=addresses,
                provider=provider,
                clock=clock,
                entropy=entropy,
                advertise=advertise,
            )
        except OperationFault as fault:
            failures += 1
            if not fault.retryable or failures == tries:
                raise
            _log.warning("joining: %s", fault)
        waits = JOIN_WAIT_S[:STANDBY_WAITS] if token.stands_by else JOIN_WAIT_S
        wait = waits[min(failures, len(waits)) - 1]
        await clock.sleep_real(wait * entropy.uniform(0.5, 1.5))


def told_address(listen: str, advertise: str, hq: str) -> str:
    """What clients are told (`host:port`): `advertise`, or what is listened on, or, when that is
    every address of this machine, the one from which it reaches headquarters.

    Raises UsageError for what clients cannot dial: they need an IP address and a port.
    """
    host, port = host_port(listen)
    if port == 0:
        raise UsageError(f"--listen {listen}: give a port, clients must know it")
    if advertise:
        host, told_port = host_port(advertise)
        port = told_port or port
    elif ip_address_of(host, "--listen").is_unspecified:
        host = address_towards(hq)
    literal = ip_address_of(host, "--advertise" if advertise else "--listen")
    if literal.is_unspecified or literal.is_multicast:
        raise UsageError(f"nobody can dial {host}; give --advertise this machine's own address")
    return join_address(host, port)


def ip_address_of(host: str, option: str) -> IPv4Address | IPv6Address:
    """Raises UsageError for anything but an IP address."""
    try:
        return ip_address(host)
    except ValueError as error:
        raise UsageError(f"{option}: {host} is a name; give an IP address, DNS is ours") from error


def _token(text: str) -> JoinToken:
    try:
        return parse_token(text.strip())
    except PeerFault as fault:
        raise UsageError(f"not a join token ({fault}); ask for a new one") from fault


def role_command(home: Home, member: Member, listen: str, time_scale: float) -> tuple[str, ...]:
    """The command line of the role that this member runs."""
    kind = "access" if member.role in ACCESS else "relay"
    options = role_options(home, member, listen, time_scale)
    return holdfast_command(kind, "serve", f"--dir={home.role_directory}", *options)


def role_options(home: Home, member: Member, listen: str, time_scale: float) -> tuple[str, ...]:
    """Those of `serve`, but for its directory."""
    return (
        f"--role={member.role}",
        f"--name={member.name}",
        f"--network={member.network.hex()}",
        f"--region={member.region}",
        f"--listen={listen}",
        f"--identity={home.identity_file}",
        f"--chain={home.chain_file}",
        f"--key={home.key_file}",
        f"--roots={home.roots_file}",
        f"--time-scale={time_scale}",
    )


@app.command
def status(*, dir: Dir, json: Json = False) -> int:
    """Say what this node is and how it is; status 1 when its agent does not run.

    The figures are the agent's own, at most some seconds old.
    """
    home = Home(dir)
    member = home.member()
    if member is None:
        raise UsageError(f"{dir} has not joined a network; see holdfast node join --help")
    report = home.report()
    running = report is not None and alive(report.pid)
    record = {**_about(member), "running": running, "report": report}
    emit(record, as_json=json, text=_describe(member, report, running))
    return 0 if running else 1


def _about(member: Member) -> dict[str, object]:
    return {
        "name": member.name,
        "role": member.role,
        "node": base32(member.node),
        "network": member.network.hex(),
        "region": member.region,
        "provider": member.provider,
        "owner": member.owner,
        "hq": member.hq,
    }


def _describe(member: Member, report: Report | None, running: bool) -> str:
    lines = [f"{member.name}  {member.role}  {member.region}  {member.provider}"]
    lines.append(f"node     {base32(member.node)}")
    if report is None or not running:
        lines.append("agent    not running; start it with holdfast node run")
        return "\n".join(lines)
    lines.append(f"agent    {report.phase}, process {report.pid}, {', '.join(report.addresses)}")
    lines.append(f"desired  version {report.desired}, term {report.term}")
    if report.certificate != "fresh":
        lines.append(f"cert     {report.certificate}: headquarters does not renew it")
    lines.append(f"witness  of {report.log_size} leaves of headquarters' log")
    if report.log_trouble:
        lines.append(f"LOG      {report.log_trouble}; see the evidence directory of this node")
    if report.release:
        lines.append(f"release  {report.release[:12]}")
    if report.release_note:
        lines.append(f"RELEASE  {report.release_note}")
    if report.alerts_waiting:
        lines.append(f"alerts   {report.alerts_waiting} wait for headquarters")
    return "\n".join(lines)


@app.command
def override(
    slot: str, *, dir: Dir, yes: Annotated[bool, Parameter(negative="")] = False, json: Json = False
) -> None:
    """Say, as the owner of a witness, that clients shall follow a slot's newest record.

    Clients follow records that change more than one relay and one replica only with the word of
    two owners. Look at the six servers first; then call again with --yes.

    Parameters
    ----------
    slot
        The slot's id, in hex.
    yes
        Sign. Without it the record is only shown.
    """
    home = Home(dir)
    member = home.member()
    if member is None:
        raise UsageError(f"{dir} has not joined a network; only members may override")
    record = asyncio.run(_override(home, member, slot, yes))
    seats = [f"{seat.name}  {base32(seat.node)}  {seat.owner}" for seat in record.seats()]
    done = "signed" if yes else "not signed yet; if you know these servers, call again with --yes"
    emit(
        {"slot": slot, "version": record.version, "servers": seats, "signed": yes},
        as_json=json,
        text="\n".join([*seats, done]),
    )


async def _override(home: Home, member: Member, slot: str, sign: bool) -> SlotRecord:
    hq = membership.connect(home, member, SystemClock())
    try:
        return await membership.override(home, member, hq, slot, signing=sign, clock=SystemClock())
    except PeerFault as fault:
        raise UsageError(f"headquarters refused: {fault}") from fault
    finally:
        await hq.close()


@app.command
def leave(*, dir: Dir, reason: str = "the owner takes it away", json: Json = False) -> None:
    """Ask headquarters to take this node out of service.

    Keep it running: it serves until another has taken its place, then its agent ends by itself.

    Parameters
    ----------
    reason
        Goes to the audit log.
    """
    home = Home(dir)
    member = home.member()
    if member is None:
        raise UsageError(f"{dir} has not joined a network, so there is nothing to leave")
    asyncio.run(_leave(home, member, reason))
    emit({"name": member.name, "leaving": True}, as_json=json, text=f"{member.name} is leaving")


async def _leave(home: Home, member: Member, reason: str) -> None:
    hq = membership.connect(home, member, SystemClock())
    try:
        await membership.leave(hq, reason)
    except PeerFault as fault:
        raise UsageError(f"headquarters refused: {fault}") from fault
    finally:
        await hq.close()
