"""`holdfast hq phoenix`, `rise` and `front`: from a lost cluster to a served one (ADR 0044).

`phoenix` needs no headquarters and no disk of one (seed 000): the newest sealed copy of the store
comes from whichever entry or core lives (or from a file), is checked against the root's
fingerprint, opens with a key file or with the words that the key grows from, and becomes a
headquarters in a new directory. Once that one serves, `rise` looks which entries and cores do not
answer any more, takes them out and gives a token for a machine in the place of each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter

from holdfast.cli.hq_call import call_hq
from holdfast.cli.output import emit
from holdfast.crypto.phrase import Phrase
from holdfast.crypto.pure import base32
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.hq.access_admin import AccessState
from holdfast.hq.admin import Done, RevokeOrder, TokenMade, TokenOrder
from holdfast.hq.brain_view import FleetView
from holdfast.hq.config import save_config
from holdfast.hq.front_admin import FrontView
from holdfast.hq.home import HqHome
from holdfast.hq.restore import check_bare, load_store, write_files
from holdfast.hq.shelf import newest_file
from holdfast.hq.snapshot import unseal
from holdfast.limits.continuity import SNAPSHOT_BYTES_MAX
from holdfast.logic.access.model import CellState, Core, Entry, ExitPolicy
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.files import read_file
from holdfast.rim.front_client import FrontClient, Where, parse_where
from holdfast.rim.ports import answers
from holdfast.wire.codec import unpack
from holdfast.wire.front import StoreCopy
from holdfast.wire.snapshot import Snapshot, identity_of

ANSWER_REAL_S: Final = 2.0
"""For a machine to take a connection."""
LOOKS: Final = 3
"""A machine that answers none of so many knocks is taken for gone."""

Dir = Annotated[Path, Parameter(name="--dir", help="Directory of the headquarters.")]
Json = Annotated[bool, Parameter(name="--json", help="One JSON object as the last line.")]


class Risen(msgspec.Struct, frozen=True):
    """A headquarters out of the ashes. Times are Unix seconds."""

    directory: str
    network: str
    made_at: int
    age_s: int
    revision: int
    epoch: int
    rows: int
    addresses: tuple[str, ...]


class Replacement(msgspec.Struct, frozen=True):
    """One machine that is gone, and the token for the one in its place."""

    gone: str
    name: str
    role: Role
    cell: str
    region: str
    owner: str
    token: str


class Replacements(msgspec.Struct, frozen=True):
    """What `rise` found; tokens are empty until it is told to act."""

    living: tuple[str, ...]
    told: int
    """Of those that live: they dial this headquarters now."""
    items: tuple[Replacement, ...]
    acted: bool


def read_opener(identity: Path | None, phrase: Path | None) -> str:
    """The age identity in a key file, or of the words in a file. Raises UsageError."""
    if (identity is None) == (phrase is None):
        raise UsageError("name the key file with --identity, or a file with the words: --phrase")
    path = identity or phrase
    assert path is not None
    data = read_file(path)
    if data is None:
        raise UsageError(f"no file {path}")
    text = data.decode(errors="replace")
    return text if phrase is None else identity_of(Phrase.parse(text))


def phoenix(
    *,
    home: Annotated[Path, Parameter(name="--dir", help="A new directory.")],
    front: Annotated[str, Parameter(name="--at")] = "",
    source: Annotated[Path | None, Parameter(name="--from")] = None,
    identity: Path | None = None,
    phrase: Path | None = None,
    address: str = "",
    force: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Make a headquarters anew on a bare machine, with none left: then run holdfast hq serve.

    Parameters
    ----------
    front
        front://NODE[,NODE...]#FINGERPRINT: the newest sealed copy that these nodes keep.
    source
        Instead: a copy or a snapshot in a file, or a directory of them.
    identity
        The age key file that opens it ...
    phrase
        ... or a file with the words that the key grows from.
    address
        host:port where nodes reach the new headquarters; where the old one was when not given.
    force
        Although a headquarters still answers: for one that was stolen. Two that decide at once
        undo each other's work.
    """
    opener = read_opener(identity, phrase)
    check_bare(home)
    if (source is None) == (not front):
        raise UsageError("name nodes that live with --at front://..., or a file with --from")
    if source is not None:
        snapshot = unseal(_sealed_in(newest_file(source)), opener)
    else:
        snapshot = asyncio.run(_fetched(parse_where(front), opener, force=force))
    write_files(snapshot, home)
    if address:
        config = HqHome(home).config()
        save_config(home, msgspec.structs.replace(config, listen=address, addresses=(address,)))
    risen = asyncio.run(_loaded(snapshot, home))
    text = (
        f"as of revision {risen.revision}, {risen.age_s} s ago; next:\n"
        f"  holdfast hq serve --dir {home}\n"
        f"  holdfast hq rise --dir {home}   once it leads: who is gone, and tokens for others\n"
        "It listens for one detection window before it decides anything."
    )
    emit(risen, as_json=json, text=text)


def _sealed_in(data: bytes) -> bytes:
    """The snapshot in a file: bare, or as a node keeps it with its head."""
    try:
        return unpack(StoreCopy, data, bytes_max=2 * SNAPSHOT_BYTES_MAX).sealed
    except PeerFault:
        return data


async def _fetched(where: Where, opener: str, *, force: bool) -> Snapshot:
    client = FrontClient(where, SystemClock(), SystemEntropy())
    try:
        if not force and await _lives(client):
            raise UsageError(
                "a headquarters still answers through these nodes; stop it for good first, or "
                "say --force if it is not yours any more"
            )
        head, sealed = await client.newest_copy()
    finally:
        await client.close()
    snapshot = unseal(sealed, opener)
    if (snapshot.network, snapshot.revision) != (head.network, head.revision):
        raise UsageError("the copy is not what its head says; ask other nodes")
    return snapshot


async def _lives(client: FrontClient) -> bool:
    """Whether any headquarters answers, asked once through each node."""
    try:
        await client.exchange("GET", "/v1/about", b"", "", patience_s=0.0)
    except (OperationFault, PeerFault):
        return False
    return True


async def _loaded(snapshot: Snapshot, home: Path) -> Risen:
    clock = SystemClock()
    restored = await load_store(snapshot, home, clock)
    config = HqHome(home).config()
    return Risen(
        directory=str(home),
        network=snapshot.network.hex(),
        made_at=restored.made_at,
        age_s=max(0, int(clock.wall() - restored.made_at)),
        revision=snapshot.revision,
        epoch=restored.epoch,
        rows=len(snapshot.rows),
        addresses=config.addresses or (config.listen,),
    )


def rise(
    *, home: Dir, yes: Annotated[bool, Parameter(negative="")] = False, json: Json = False
) -> None:
    """Say which entries and cores do not answer; with --yes take them out, and print tokens.

    Those that answer are told where headquarters is now.

    Run it where the machines can be reached from: one that does not answer from here is taken for
    gone, and what is taken out does not come back with the keys it had.

    Parameters
    ----------
    yes
        Revoke those that are gone and make a token for a machine in the place of each.
    """
    state = call_hq(home, "GET", "/access", None, AccessState)
    active = {cell.id for cell in state.cells if cell.state is CellState.ACTIVE}
    everything: tuple[Entry | Core, ...] = (*state.cores, *state.entries)
    nodes = [node for node in everything if node.cell in active]
    gone = asyncio.run(_silent(nodes))
    providers = _providers(home) if yes else {}
    items = tuple(_replace(home, node, providers.get(node.name, ""), yes) for node in gone)
    living = tuple(node.name for node in nodes if node not in gone)
    told = asyncio.run(_tell(home, [node for node in nodes if node not in gone]))
    lines = [f"{item.gone} is gone" + (f"; {item.token}" if yes else "") for item in items]
    if items and not yes:
        lines.append("with --yes they are revoked, and you get a token for a machine for each")
    text = "\n".join(lines) or "every entry and core answers"
    emit(Replacements(living, told, items, yes), as_json=json, text=text)


async def _tell(home: Path, living: Sequence[Entry | Core]) -> int:
    """Say to those that live where headquarters is now; how many believe it."""
    if not living:
        return 0
    view = await asyncio.to_thread(call_hq, home, "GET", "/front", None, FrontView)
    addresses = tuple(address for node in living for address in node.addresses[:1])
    where = Where(addresses, bytes.fromhex(view.root))
    client = FrontClient(where, SystemClock(), SystemEntropy())
    try:
        return await client.tell(view.notice)
    finally:
        await client.close()


def _providers(home: Path) -> dict[str, str]:
    """Who hosts each node. A restored headquarters that only listens yet does not say; machines
    then join under the provider that their own owner names."""
    try:
        fleet = call_hq(home, "GET", "/fleet", None, FleetView)
    except OperationFault:
        return {}
    return {server.name: server.provider for server in fleet.servers}


async def _silent(nodes: Sequence[Entry | Core]) -> list[Entry | Core]:
    """Those that answer nowhere, asked a few times."""
    clock = SystemClock()
    silent = list(nodes)
    for look in range(LOOKS):
        asked = [_answers(node, clock) for node in silent]
        found = await asyncio.gather(*asked)
        silent = [node for node, there in zip(silent, found, strict=True) if not there]
        if silent and look + 1 < LOOKS:
            await clock.sleep_real(ANSWER_REAL_S)
    return silent


async def _answers(node: Entry | Core, clock: SystemClock) -> bool:
    tried = [answers(address, clock, ANSWER_REAL_S) for address in node.addresses]
    return any(await asyncio.gather(*tried))


def _replace(home: Path, node: Entry | Core, provider: str, yes: bool) -> Replacement:
    """Token first, then the revocation: cut off in between, the next run does the rest."""
    role = Role.ENTRY if isinstance(node, Entry) else Role.CORE
    made: TokenMade | None = None
    if yes:
        order = TokenOrder(
            role=role, region=node.region, owner=node.owner, provider=provider, cell=node.cell
        )
        made = call_hq(home, "POST", "/tokens", order, TokenMade)
        if isinstance(node, Core) and node.policy != ExitPolicy():
            call_hq(home, "PUT", f"/access/policies/{made.name}", node.policy, ExitPolicy)
        revoked = RevokeOrder(reason=f"gone; {made.name} in its place", node=base32(node.node))
        call_hq(home, "POST", "/revoke", revoked, Done)
    return Replacement(
        gone=node.name,
        name=made.name if made else "",
        role=role,
        cell=node.cell,
        region=node.region,
        owner=node.owner,
        token=made.token if made else "",
    )


def front(*, home: Dir, json: Json = False) -> None:
    """Print the line by which operators reach headquarters through any entry or core."""
    view = call_hq(home, "GET", "/front", None, FrontView)
    if not view.addresses:
        raise UsageError("no entry or core has joined yet; see holdfast hq token create")
    where = Where(view.addresses, bytes.fromhex(view.root))
    text = (
        f"{where}\nused as HOLDFAST_OPERATOR_AT; every member may know it, no prober should\n"
        f"{view.holders} of {len(view.addresses)} nodes hold the newest copy of the store"
    )
    emit({"at": str(where), "holders": view.holders}, as_json=json, text=text)
