"""`holdfast node`: a server of the network, from its token to its retirement."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from holdfast.cli.node_defer import defer
from holdfast.cli.node_join import DEFAULT_LISTEN, JOIN_TRIES, join_network
from holdfast.cli.node_run import VARIABLES, run
from holdfast.cli.output import emit
from holdfast.cli.plain import described
from holdfast.crypto.pure import base32
from holdfast.errors import PeerFault, UsageError
from holdfast.logic.fleet.model import SlotRecord
from holdfast.node import membership
from holdfast.node.home import Home, Member, Report
from holdfast.rim.clock import SystemClock
from holdfast.rim.files import lock_directory, read_file
from holdfast.rim.process import alive

Dir = Annotated[Path, Parameter(help="The node's own directory.", env_var="HOLDFAST_DIR")]
Json = Annotated[bool, Parameter(help="One JSON object as the last line.", negative="")]

_log = logging.getLogger("holdfast.node")
app = cyclopts.App(name="node", help_format="plaintext")
app.command(defer)
app.command(described(run, VARIABLES, dir="The node's own directory."))


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
            join_network(
                home, line.decode(), listen, advertise, provider, SystemClock(), JOIN_TRIES
            )
        )
    told = member.addresses[0] if member.addresses else member.listen
    text = (
        f"joined as {member.name}, {member.role}; clients are told {told}\n"
        f"next: holdfast node run --dir {dir}"
    )
    emit(_about(member) | {"told": told}, as_json=json, text=text)


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
