"""`holdfast carry`: what devices keep for each other, how many copies, what is at risk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import msgspec
from cyclopts import Parameter
from rich.console import Console

from holdfast.cli.devices import HOME, Dir, Json, Scale, opened, passphrase
from holdfast.cli.output import EXIT_NO, EXIT_OK, emit
from holdfast.cli.service import clock_of, start_log
from holdfast.device.agent import Agent, GroupCopies
from holdfast.device.peering.peers import peer_named, peers
from holdfast.device.state import DeviceState
from holdfast.device.tend import tend
from holdfast.device.vault.layers import Repushed, repush
from holdfast.device.vault.split import join, split
from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock

app = cyclopts.App(
    name="carry", help_format="plaintext", help="Copies on your devices and your friends' devices."
)
With = Annotated[list[str], Parameter(name="--with", help="A device of yours, or a friend.")]


@app.command
def copies(*, dir: Dir = HOME, time_scale: Scale = 1.0, json: Json = False) -> int:
    """Level with every device that answers; then say who holds what and what is at risk.

    Exit status 1 says that something has fewer than two copies on devices that answer now.
    """
    start_log("warning")
    found, silent = asyncio.run(_copies(dir.expanduser(), clock_of(time_scale)))
    at_risk = sum(group.copies.at_risk for group in found)
    record = {
        "groups": [msgspec.to_builtins(group) for group in found],
        "at_risk": at_risk,
        "silent": silent,
    }
    lines = [_row(group) for group in found]
    lines += [f"does not answer: {name}" for name in silent]
    emit(record, as_json=json, text="\n".join(lines))
    return EXIT_NO if at_risk else EXIT_OK


def _row(group: GroupCopies) -> str:
    copies = group.copies
    held = ", ".join(f"{name} {count}" for name, count in copies.held)
    risk = f"{copies.at_risk} AT RISK" if copies.at_risk else "safe"
    text = f"{group.name}: {copies.blobs} blobs, at least {copies.least} on devices of people"
    return f"{text}, {risk} ({held}); servers' copies are not counted"


async def _copies(home: Path, clock: Clock) -> tuple[list[GroupCopies], list[str]]:
    async with opened(home, clock) as runtime:
        agent = Agent(runtime)
        try:
            try:
                await tend(runtime)
            except OperationFault as fault:
                Console(stderr=True).print(f"offline: {fault}")
            swept = await agent.sweep()
            return await agent.copies(), swept.silent
        finally:
            await agent.stop()


@app.command(name="repush")
def repush_history(*, dir: Dir = HOME, time_scale: Scale = 1.0, json: Json = False) -> None:
    """Give servers of your slots what they lack of this device's vault: a fresh replica fills."""
    start_log("warning")
    done = asyncio.run(_repush(dir.expanduser(), clock_of(time_scale)))
    where = ", ".join(f"{name} {count}" for name, count in sorted(done.servers.items()))
    text = f"{done.blobs} blobs, {done.bytes} bytes given back ({where or 'nothing was missing'})"
    emit(done, as_json=json, text=text)


async def _repush(home: Path, clock: Clock) -> Repushed:
    async with opened(home, clock) as runtime:
        agent = Agent(runtime)
        try:
            await agent.sweep()
            return await repush(runtime, agent)
        finally:
            await agent.stop()


@app.command(name="peers")
def list_peers(*, dir: Dir = HOME, time_scale: Scale = 1.0, json: Json = False) -> None:
    """Devices this one can write to."""
    start_log("warning")
    found = asyncio.run(_peers(dir.expanduser(), clock_of(time_scale)))
    rows = [f"{peer['name']}\t{', '.join(peer['addresses']) or 'no address'}" for peer in found]
    emit({"peers": found}, as_json=json, text="\n".join(rows) or "nobody yet")


async def _peers(home: Path, clock: Clock) -> list[dict[str, Any]]:
    async with opened(home, clock) as runtime:
        return [{"name": p.name, "addresses": list(p.addresses)} for p in peers(runtime)]


@app.command(name="split")
def split_key(
    *, carriers: With, dir: Dir = HOME, time_scale: Scale = 1.0, json: Json = False
) -> None:
    """Keep half of this device's key with others: its disk alone then opens nothing.

    From then on one of them must answer when this device starts. They must be running now.

    Parameters
    ----------
    carriers
        Who carries the half; any one of them is enough later. The words open it too.
    """
    start_log("warning")
    count = asyncio.run(_split(carriers, dir.expanduser(), clock_of(time_scale)))
    emit({"carriers": count}, as_json=json, text=f"{count} devices carry the other half now")


async def _split(names: list[str], home: Path, clock: Clock) -> int:
    async with opened(home, clock) as runtime:
        return await split(runtime, [peer_named(runtime, name) for name in names])


@app.command(name="join")
def join_key(*, dir: Dir = HOME, time_scale: Scale = 1.0, json: Json = False) -> None:
    """Need nobody's half any more to open this device."""
    start_log("warning")
    asyncio.run(_join(dir.expanduser(), clock_of(time_scale)))
    emit({"carriers": 0}, as_json=json, text="this device opens alone again")


async def _join(home: Path, clock: Clock) -> None:
    async with opened(home, clock) as runtime:
        join(runtime.state)


@app.command
def lock(*, dir: Dir = HOME, json: Json = False) -> None:
    """Lock this device's key with a passphrase (asked, or from HOLDFAST_PASSPHRASE_FILE)."""
    _with_state(dir, lambda state: state.lock_key(passphrase()))
    emit({"locked": True}, as_json=json, text="locked; the passphrase is asked from now on")


@app.command
def unlock(*, dir: Dir = HOME, json: Json = False) -> None:
    """Leave this device's key open on its disk again."""
    _with_state(dir, lambda state: state.unlock_key())
    emit({"locked": False}, as_json=json, text="the key lies open now")


def _with_state(home: Path, act: Callable[[DeviceState], None]) -> None:
    state = DeviceState.open(home.expanduser(), clock_of(1.0), passphrase=passphrase)
    try:
        act(state)
    finally:
        state.close()
