"""`holdfast hq snapshots` and `holdfast hq restore`: a headquarters that outlives its machine.

Snapshots are sealed to people's age keys (`holdfast hq snapshots key` makes one, `age-keygen` does
as well). What an envelope must hold to restore from the pool is the key file, the locator and the
key line; from a directory the key file is enough.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Final

import cyclopts
import msgspec
from cyclopts import Parameter

from holdfast.cli.hq_call import call_hq
from holdfast.cli.hq_options import Dir, Json
from holdfast.cli.output import EXIT_NO, EXIT_OK, emit
from holdfast.crypto.era import Era
from holdfast.crypto.phrase import Phrase
from holdfast.crypto.sealedfile import make_identity, recipient_of, seal_for
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.fabric.network import Network
from holdfast.fabric.slot import Slot
from holdfast.fabric.store import Store
from holdfast.hq import admin
from holdfast.hq.config import ContinuityConfig, save_config
from holdfast.hq.home import at
from holdfast.hq.restore import check_bare, load_store, write_files
from holdfast.hq.shelf import newest_file, newest_in_pool
from holdfast.hq.snapshot import KEY_FILE, unseal
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.files import read_file, remove_tree, write_file
from holdfast.rim.resolver import Resolver
from holdfast.wire.locator import parse_locator
from holdfast.wire.snapshot import Snapshot, identity_of, key_line, parse_key_line

snapshots = cyclopts.App(name="snapshots", help="Sealed copies: who may open them, where they lie.")
POOL_REAL_S: Final = 120.0
"""To find and fetch a snapshot in the pool."""


class Lines(msgspec.Struct, frozen=True):
    """What finds a snapshot in the pool; the key file that opens it is another thing."""

    locator: str
    key: str


class Done(msgspec.Struct, frozen=True):
    """A headquarters restored. Times are Unix seconds."""

    directory: str
    made_at: int
    revision: int
    epoch: int
    rows: int


@snapshots.command
def key(
    out: Path,
    *,
    phrase: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Make an age key file that opens snapshots, and print the recipient for `set`.

    Parameters
    ----------
    out
        Where to write the key; keep it away from headquarters.
    phrase
        Write 24 words instead, from which the key grows: for paper (holdfast hq phoenix --phrase).
    """
    if out.exists():
        raise UsageError(f"{out} exists; choose another name")
    identity = make_identity()
    written = identity
    if phrase:
        words = Phrase.from_entropy(SystemEntropy().bytes(32))
        identity, written = identity_of(words), " ".join(words.words())
    write_file(out, written.encode() + b"\n")
    recipient = recipient_of(identity)
    emit({"recipient": recipient, "file": str(out)}, as_json=json, text=recipient)


@snapshots.command(name="set")
def choose(
    *,
    home: Dir,
    recipient: list[str],
    directory: list[str] | None = None,
    pool_region: str = "",
    json: Json = False,
) -> None:
    """Say who may open snapshots and where they go; headquarters follows at its next start.

    Parameters
    ----------
    recipient
        age1... of a person; once for each.
    directory
        A directory that gets every snapshot and is there already, relative to that of
        headquarters; once for each.
    pool_region
        Keep them in the pool too, in a slot of this region.
    """
    hq = at(home)
    chosen = ContinuityConfig(tuple(recipient), tuple(directory or ()), pool_region)
    chosen.check()
    seal_for(b"", chosen.recipients)
    config = hq.config()
    for name in chosen.directories:
        if not (hq.directory / name).is_dir():
            raise UsageError(f"{hq.directory / name} is no directory; make or mount it first")
    if pool_region and pool_region not in config.regions:
        known = ", ".join(config.regions) or "none"
        raise UsageError(f"no region {pool_region!r} here; there is: {known}")
    save_config(hq.directory, msgspec.structs.replace(config, continuity=chosen))
    emit(chosen, as_json=json, text="set; restart headquarters to use it")


@snapshots.command
def status(*, home: Dir, json: Json = False) -> int:
    """Say how old the newest snapshot on every shelf is. Exit status 1 when one has none."""
    view = _view(home)
    now = SystemClock().wall()
    lines = [
        f"{kept.shelf:30} "
        + (f"{now - kept.at:8.0f} s old, {kept.file_bytes} bytes" if kept.at else "none yet")
        + (f"; {kept.error}" if kept.error else "")
        for kept in view.shelves
    ]
    emit(view, as_json=json, text="\n".join(lines) or "none yet")
    whole = bool(view.shelves) and all(kept.at and not kept.error for kept in view.shelves)
    return EXIT_OK if whole else EXIT_NO


@snapshots.command
def lines(*, home: Dir, json: Json = False) -> None:
    """Print the locator and the key line that find snapshots in the pool: for an envelope."""
    view = _view(home)
    secret = read_file(at(home).directory / KEY_FILE)
    if not view.locator or secret is None:
        raise UsageError("the pool keeps no snapshots; see holdfast hq snapshots set --pool-region")
    found = Lines(view.locator, key_line(secret))
    emit(found, as_json=json, text=f"{found.locator}\n{found.key}")


def restore(
    *,
    home: Annotated[Path, Parameter(name="--dir", help="A new directory.")],
    identity: Path,
    source: Annotated[Path | None, Parameter(name="--from")] = None,
    locator: str = "",
    key: str = "",
    json: Json = False,
) -> None:
    """Make a headquarters out of a snapshot, on a bare machine; then run: holdfast hq serve.

    Parameters
    ----------
    identity
        The age key file that opens it.
    source
        A snapshot, or a directory of them, of which the newest is taken.
    locator
        Instead: where the pool keeps them ...
    key
        ... and the key line that fetches them.
    """
    opener = read_file(identity)
    if opener is None:
        raise UsageError(f"no file {identity}")
    check_bare(home)
    if (source is None) == (not (locator and key)):
        raise UsageError("name a file or directory with --from, or --locator and --key")
    if source is not None:
        sealed = newest_file(source)
    else:
        sealed = asyncio.run(_from_pool(locator, key, home))
    snapshot = unseal(sealed, opener.decode(errors="replace"))
    write_files(snapshot, home)
    done = asyncio.run(_load(snapshot, home))
    text = (
        f"restored as of revision {done.revision}; next: holdfast hq serve --dir {home}\n"
        "It listens for one detection window before it decides anything."
    )
    emit(done, as_json=json, text=text)


async def _load(snapshot: Snapshot, home: Path) -> Done:
    restored = await load_store(snapshot, home, SystemClock())
    return Done(str(home), restored.made_at, snapshot.revision, restored.epoch, len(snapshot.rows))


async def _from_pool(locator_line: str, line: str, home: Path) -> bytes:
    """Fetch the newest snapshot; its working files beside `home` are gone afterwards."""
    try:
        locator, secret = parse_locator(locator_line), parse_key_line(line)
    except PeerFault as fault:
        raise UsageError(f"not a locator and a key line: {fault}") from fault
    if len(secret) != 32:
        raise UsageError("that key line is of another kind")
    clock = SystemClock()
    era = Era(secret, locator.network)
    network = Network(
        id=locator.network,
        domain=locator.domain,
        roots=locator.roots,
        clock=clock,
        entropy=SystemEntropy(),
        resolver=Resolver(locator.resolvers),
    )
    scratch = home.with_name(home.name + ".fetching")
    store = Store(scratch, clock)
    try:
        async with (
            clock.real_timeout(POOL_REAL_S),
            Slot(network, locator, store).opened(era) as slot,
        ):
            return await newest_in_pool(slot, era)
    except TimeoutError:
        raise OperationFault(f"no snapshot found in {POOL_REAL_S:.0f} s; try again") from None
    finally:
        store.close()
        remove_tree(scratch)


def _view(home: Path) -> admin.SnapshotsView:
    return call_hq(home, "GET", "/snapshots", None, admin.SnapshotsView)
