"""`holdfast node run` (`cli.plain`): a server's agent, until it is stopped or retired."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Final

import msgspec

from holdfast.cli.node_join import DEFAULT_LISTEN, join_network, token_of, told_address
from holdfast.cli.service import clock_of, start_service_log, until_stopped
from holdfast.errors import OperationFault, UsageError
from holdfast.logic.fleet.model import ACCESS
from holdfast.node.agent import Agent, StartRole
from holdfast.node.home import Home, Member
from holdfast.node.role import RoleProcess
from holdfast.rim.clock import Clock
from holdfast.rim.cloud.account import TOKEN_VARIABLE
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.files import lock_directory, read_file, remove_file
from holdfast.rim.log import LogForm, name_log
from holdfast.rim.process import holdfast_command

VARIABLES: Final = {"dir": "HOLDFAST_DIR", "token": TOKEN_VARIABLE}

_log = logging.getLogger("holdfast.node")


def run(
    *,
    dir: Path,
    token_file: Path | None = None,
    token: str = "",
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
        if token_of(token).stands_by:
            first_role = await _role_that_waits(home, clock)
        member = await join_network(home, token, where, advertise, provider, clock, None)
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
