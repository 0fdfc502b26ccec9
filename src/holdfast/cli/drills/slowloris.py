"""`holdfast drill slowloris`, and the processes it starts: the hostile one, and a relay without
its defences."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import uvloop

from holdfast.cli.drills.play import Keep, play
from holdfast.cli.relay_role import serve
from holdfast.crypto.certinfo import from_pem
from holdfast.errors import UsageError
from holdfast.logic.fleet.model import Role
from holdfast.rim import pool_server
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.stalled import StalledConnections
from holdfast.sim.drills.hostile import Hostile
from holdfast.sim.drills.slowloris import Slowloris, allow_descriptors

FOR_EVER_S: Final = 86_400.0


def slowloris(
    *,
    hostile: int = 10_000,
    honest: int = 200,
    seconds: float = 30.0,
    seed: int = 1,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """Hang thousands of connections on one relay and see what honest clients feel.

    Parameters
    ----------
    hostile
        Connections that are silent, or send a byte now and then.
    honest
        Clients that push and verify receipts meanwhile.
    seconds
        How long honest clients are measured, once without and once with the hostile ones.
    seed
        When honest clients come, and which of their connections are new.
    json
        One JSON object as the last line.
    """
    if hostile < 1 or honest < 1 or seconds <= 0:
        raise UsageError("--hostile and --honest are at least 1, --seconds above 0")
    clock, entropy = SystemClock(), SystemEntropy()
    return play(
        "slowloris",
        lambda home: Slowloris(home, clock, entropy, seed).run(hostile, honest, seconds),
        keep=keep,
        json=json,
        run=uvloop.run,  # both client processes share the cores with the relay: lean ones
    )


def hostile(*, address: str, roots: Path, count: int, kinds: str, tally: Path) -> None:
    """The hostile process of `slowloris`; runs as long as its parent."""
    allow_descriptors(count)
    pinned = from_pem(roots.read_bytes())
    attack = Hostile(address, pinned, SystemClock(), count, kinds.split(","))
    uvloop.run(attack.run(tally))


def patient(
    *,
    dir: Path,
    listen: str,
    role: Role,
    region: str,
    chain: Path,
    key: Path,
    identity: Path,
    roots: Path,
    name: str = "",
    network: str = "",
    limit_s: float = FOR_EVER_S,
) -> None:
    """A relay that waits `limit_s` real seconds for everything, for ever unless told: the control
    of `slowloris`. Nothing but this command sets a relay's limits."""
    for name_of_limit in ("HEAD_READ_S", "BODY_READ_S", "QUIET_S", "TLS_HANDSHAKE_S"):
        setattr(pool_server, name_of_limit, limit_s)
    if limit_s == FOR_EVER_S:
        StalledConnections.run = _blind  # type: ignore[assignment,method-assign]
    serve(
        dir=dir,
        listen=listen,
        role=role,
        region=region,
        chain=chain,
        key=key,
        identity=identity,
        roots=roots,
        name=name,
        network=network,
    )


async def _blind(_: StalledConnections) -> None:
    """A watcher that looks at nothing."""
