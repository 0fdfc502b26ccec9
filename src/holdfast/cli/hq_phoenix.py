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

from holdfast.cli.hq_call import call_hq, call_own
from holdfast.cli.output import emit
from holdfast.crypto.certinfo import fingerprint, from_pem
from holdfast.crypto.phrase import Phrase
from holdfast.crypto.pure import base32, hash_bytes
from holdfast.crypto.rootset import only_roots, trusted_roots
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.hq.access_admin import AccessState
from holdfast.hq.admin import Done, RevokeOrder, TokenMade, TokenOrder
from holdfast.hq.brain_view import FleetView
from holdfast.hq.config import save_config
from holdfast.hq.front_admin import FrontView
from holdfast.hq.home import ROOTS_FILE, HqHome
from holdfast.hq.restore import check_bare, load_store, write_files
from holdfast.hq.shelf import newest_file
from holdfast.hq.snapshot import unseal
from holdfast.limits.continuity import SNAPSHOT_BYTES_MAX
from holdfast.limits.front import FRONT_GONE_REAL_S
from holdfast.logic.access.model import CellState, Core, Entry, ExitPolicy
from holdfast.logic.fleet.model import Role
from holdfast.logic.trust.revocation import Revoked, matches
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.files import read_file
from holdfast.rim.front_client import FrontClient, Where, parse_where
from holdfast.rim.ports import answers
from holdfast.wire.codec import pack, unpack
from holdfast.wire.front import CopyHead, StoreCopy
from holdfast.wire.signed import Type
from holdfast.wire.snapshot import Snapshot, identity_of
from holdfast.wire.staple import presented, verify_staple

ANSWER_REAL_S: Final = 2.0
"""For a machine to take a connection."""
FINGERPRINT_BYTES: Final = 32
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
    waiting: tuple[str, ...] = ()
    """Silent from here, and nothing is done about them: headquarters hears them, or has not
    listened for long enough to say that it does not."""


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
    root: str = "",
    force: Annotated[bool, Parameter(negative="")] = False,
    older: Annotated[bool, Parameter(negative="")] = False,
    unsigned: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Make a headquarters anew on a bare machine, with none left: then run holdfast hq serve.

    Parameters
    ----------
    front
        front://NODE[,NODE...]#FINGERPRINT: the newest sealed copy that these nodes keep.
    source
        A copy or a snapshot in a file, or a directory of them. With --at too: the nodes are asked
        whether a headquarters lives, and who is revoked.
    identity
        The age key file that opens it ...
    phrase
        ... or a file with the words that the key grows from.
    address
        host:port where nodes reach the new headquarters; where the old one was when not given.
    root
        With --from and without --at: the fingerprint of the network's root, 64 hex digits.
    force
        Although a headquarters still answers, or nobody can be asked: for one that was stolen. Two
        that decide at once undo each other's work.
    older
        An older copy, where the newest that nodes show cannot be fetched from any of them.
    unsigned
        A snapshot file, which nobody signed: whoever knows a recipient can make one.
    """
    opener = read_opener(identity, phrase)
    check_bare(home)
    if source is None and not front:
        raise UsageError("name nodes that live with --at front://..., or a file with --from")
    if not (front or force):
        raise UsageError(
            "name nodes with --at, so that a headquarters that lives is seen; or say --force"
        )
    where = parse_where(front) if front else None
    data = newest_file(source) if source is not None else b""
    if source is not None and not unsigned:
        _check_signed(data, where, root)
    sealed, out = asyncio.run(_asked(where, data, force=force, older=older))
    snapshot = _opened(sealed, opener, where.fingerprint if where else _pin(root), out)
    write_files(snapshot, home)
    if address:
        config = HqHome(home).config()
        save_config(home, msgspec.structs.replace(config, listen=address, addresses=(address,)))
    risen = asyncio.run(_loaded(snapshot, home, out))
    text = (
        f"as of revision {risen.revision}, {risen.age_s} s ago; next:\n"
        f"  holdfast hq serve --dir {home}\n"
        f"  holdfast hq rise --dir {home}   once it leads: who is gone, and tokens for others\n"
        "It listens for one detection window before it decides anything."
    )
    emit(risen, as_json=json, text=text)


def _pin(root: str) -> bytes:
    try:
        return bytes.fromhex(root)
    except ValueError as error:
        raise UsageError("--root is a fingerprint in hex") from error


def _copy_in(data: bytes) -> StoreCopy | None:
    """A copy as a node keeps it; None for a bare snapshot."""
    try:
        return unpack(StoreCopy, data, bytes_max=2 * SNAPSHOT_BYTES_MAX)
    except PeerFault:
        return None


def _check_signed(data: bytes, where: Where | None, root: str) -> None:
    """Raises UsageError where there is no signature, or nothing to check it by."""
    if _copy_in(data) is None:
        raise UsageError(
            "that is a snapshot, which nobody signed; if you know where it has been, say --unsigned"
        )
    if where is None and len(_pin(root)) != FINGERPRINT_BYTES:
        raise UsageError("say whose copy it is: --root with the 64 hex digits of its fingerprint")


def _opened(data: bytes, opener: str, pin: bytes, out: Sequence[Revoked]) -> Snapshot:
    """What is in a copy, believed by the root with this fingerprint, or in a bare snapshot. Raises
    UsageError."""
    copy = _copy_in(data)
    snapshot = unseal(data if copy is None else copy.sealed, opener)
    if copy is None or not pin:
        return snapshot
    files = {file.path: file.body for file in snapshot.files}
    now = SystemClock().wall()
    try:
        inside = from_pem(files.get(ROOTS_FILE, b""))
        pinned = [der for der in only_roots(inside) if fingerprint(der) == pin]
        if not pinned:
            raise PeerFault("no root in it has the fingerprint you know")
        roots = trusted_roots(pinned, inside, now)
        head = verify_staple(roots, copy.head, Type.STORE_COPY, CopyHead, now)
        if entry := matches(out, presented(copy.head.proof)):
            raise PeerFault(f"its headquarters is revoked ({entry.reason}), and so are its keys")
    except PeerFault as fault:
        raise UsageError(f"do not trust this copy: {fault}; take one of another node") from fault
    if hash_bytes(copy.sealed) != head.digest or (snapshot.network, snapshot.revision) != (
        head.network,
        head.revision,
    ):
        raise UsageError("the copy is not what its head says; take one of another node")
    return snapshot


async def _asked(
    where: Where | None, data: bytes, *, force: bool, older: bool
) -> tuple[bytes, tuple[Revoked, ...]]:
    """The file, or the newest copy of the nodes; and who is out by their lists."""
    if where is None:
        return data, ()
    client = FrontClient(where, SystemClock(), SystemEntropy())
    try:
        if not force:
            await _check_gone(client)
        if not data:
            _, copy = await client.newest(older=older)
            data = pack(copy)
        else:
            await client.hear()
        return data, client.revoked
    finally:
        await client.close()


async def _check_gone(client: FrontClient) -> None:
    """Raises UsageError unless it is plain that no headquarters answers."""
    try:
        living = await client.lives(FRONT_GONE_REAL_S)
    except (OperationFault, PeerFault) as fault:
        raise UsageError(
            f"whether a headquarters lives cannot be told: {fault}; name other nodes, or say "
            "--force if you know that none does"
        ) from fault
    if living:
        raise UsageError(
            "a headquarters still answers through these nodes; stop it for good first, or "
            "say --force if it is not yours any more"
        )


async def _loaded(snapshot: Snapshot, home: Path, out: Sequence[Revoked]) -> Risen:
    clock = SystemClock()
    restored = await load_store(snapshot, home, clock, out)
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
    *,
    home: Dir,
    yes: Annotated[bool, Parameter(negative="")] = False,
    gone: tuple[str, ...] = (),
    json: Json = False,
) -> None:
    """Say which entries and cores do not answer; with --yes take them out, and print tokens.

    Those that answer are told where headquarters is now. It is the headquarters in the directory
    that is asked and acts, whatever HOLDFAST_OPERATOR_AT says.

    Run it where the machines can be reached from: one that does not answer from here, and has sent
    no heartbeat, is taken for gone, and what is taken out does not come back with the keys it had.

    Parameters
    ----------
    yes
        Revoke those that are gone and make a token for a machine in the place of each.
    gone
        Only these, by name; a must where more than half of all are to be revoked.
    """
    state = call_own(home, "GET", "/access", None, AccessState)
    active = {cell.id for cell in state.cells if cell.state is CellState.ACTIVE}
    everything: tuple[Entry | Core, ...] = (*state.cores, *state.entries)
    nodes = [node for node in everything if node.cell in active]
    silent = asyncio.run(_silent(nodes))
    living = [node for node in nodes if node not in silent]
    told = asyncio.run(_tell(home, living))
    fleet = _fleet(home)
    heard = {server.name for server in fleet.servers if not server.silent} if fleet else None
    waiting = [node.name for node in silent if heard is None or node.name in heard]
    found = _chosen([node for node in silent if node.name not in waiting], gone)
    if yes and len(found) > len(nodes) / 2 and not gone:
        names = " ".join(f"--gone {node.name}" for node in found)
        raise UsageError(
            f"that is {len(found)} of {len(nodes)}: is it they that are gone, or your own line? "
            f"If they are, name them: {names}"
        )
    providers = {server.name: server.provider for server in fleet.servers} if fleet else {}
    items = tuple(_replace(home, node, providers.get(node.name, ""), yes) for node in found)
    lines = [f"{item.gone} is gone" + (f"; {item.token}" if yes else "") for item in items]
    if items and not yes:
        lines.append("with --yes they are revoked, and you get a token for a machine for each")
    if waiting:
        why = "headquarters hears them, or has not waited long enough; ask again in two minutes"
        lines.append(f"no answer from {', '.join(waiting)}, but {why}")
    text = "\n".join(lines) or "every entry and core answers"
    answering = tuple(node.name for node in living)
    emit(Replacements(answering, told, items, yes, tuple(waiting)), as_json=json, text=text)


def _chosen(silent: list[Entry | Core], names: Sequence[str]) -> list[Entry | Core]:
    """Those with the names; all without any. Raises UsageError."""
    unknown = set(names) - {node.name for node in silent}
    if unknown:
        raise UsageError(f"not known to be gone: {', '.join(sorted(unknown))}")
    return [node for node in silent if not names or node.name in names]


def _fleet(home: Path) -> FleetView | None:
    """None of a headquarters that only listens yet: it cannot say whom it hears."""
    try:
        return call_own(home, "GET", "/fleet", None, FleetView)
    except OperationFault:
        return None


async def _tell(home: Path, living: Sequence[Entry | Core]) -> int:
    """Say to those that live where headquarters is now; how many believe it."""
    if not living:
        return 0
    view = await asyncio.to_thread(call_own, home, "GET", "/front", None, FrontView)
    addresses = tuple(address for node in living for address in node.addresses[:1])
    where = Where(addresses, bytes.fromhex(view.root))
    client = FrontClient(where, SystemClock(), SystemEntropy())
    try:
        return await client.tell(view.notice)
    finally:
        await client.close()


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
        made = call_own(home, "POST", "/tokens", order, TokenMade)
        if isinstance(node, Core) and node.policy != ExitPolicy():
            call_own(home, "PUT", f"/access/policies/{made.name}", node.policy, ExitPolicy)
        revoked = RevokeOrder(reason=f"gone; {made.name} in its place", node=base32(node.node))
        call_own(home, "POST", "/revoke", revoked, Done)
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
