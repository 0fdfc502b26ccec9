"""A group's log on disk: checked before it is kept, folded again after a restart, gaps named."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from holdfast.crypto.keys import SigningKey
from holdfast.device.log import GroupLog, signed_type
from holdfast.device.state import SCHEMA
from holdfast.errors import PeerFault
from holdfast.fabric.database import Database
from holdfast.logic.group.members import Added, Genesis, MemberEntries
from holdfast.logic.group.operation import Kind, Operation, encode_entries, group_id
from holdfast.logic.group.reducer import Outcome
from holdfast.wire.codec import pack
from holdfast.wire.envelope import sign
from holdfast.wire.signed import Type

FOUNDER, FRIEND, STRANGER = (SigningKey(bytes([n]) * 32) for n in (1, 2, 3))
NONCE = bytes(32)
GROUP = group_id(FOUNDER.public, NONCE)
GENESIS = encode_entries(Genesis(NONCE, "founder"))


def opened(path: Path) -> Database:
    return Database(path / "device.db", SCHEMA)


def add_friend() -> bytes:
    return encode_entries(MemberEntries((Added(FRIEND.public, "friend"),)))


def test_what_is_written_is_there_after_a_restart(tmp_path: Path) -> None:
    database = opened(tmp_path)
    log = GroupLog(database, GROUP)
    for kind, entries in ((Kind.GENESIS, GENESIS), (Kind.MEMBER, add_friend())):
        written = log.prepare(FOUNDER, kind, entries)
        log.store(written)
        log.fold(written)
    again = GroupLog(opened(tmp_path), GROUP)
    assert len(again) == 2
    assert FRIEND.public in again.state.members
    assert again.state.dag.heads() == log.state.dag.heads()
    other = GroupLog(opened(tmp_path), bytes(32))
    assert len(other) == 0


def test_what_is_stored_and_not_folded_is_folded_next_time(tmp_path: Path) -> None:
    """A crash between the two: the log on disk decides."""
    log = GroupLog(opened(tmp_path), GROUP)
    log.store(log.prepare(FOUNDER, Kind.GENESIS, GENESIS))
    assert len(log) == 0
    assert len(GroupLog(opened(tmp_path), GROUP)) == 1


def test_payloads_are_taken_once_and_in_any_order(tmp_path: Path) -> None:
    writer = GroupLog(opened(tmp_path), GROUP)
    written = []
    for kind, entries in ((Kind.GENESIS, GENESIS), (Kind.MEMBER, add_friend())):
        written.append(writer.prepare(FOUNDER, kind, entries))
        writer.fold(written[-1])
    reader = GroupLog(opened(tmp_path), GROUP)
    for item in [*reversed(written), *written]:
        reader.take(b"", item.payload)
    assert reader.outcomes[Outcome.FOLDED] + reader.outcomes[Outcome.WAITING] == 2
    assert FRIEND.public in reader.state.members


def test_forgeries_are_refused_and_not_kept(tmp_path: Path) -> None:
    log = GroupLog(opened(tmp_path), GROUP)
    genuine = log.prepare(FOUNDER, Kind.GENESIS, GENESIS)
    other_group = msgspec.structs.replace(genuine.operation, group=b"x" * 32)
    false_author = Operation(GROUP, FOUNDER.public, (), Kind.GENESIS, 1, GENESIS)
    broken = sign(FOUNDER, Type.OPERATION, genuine.operation)
    forgeries = [
        pack(sign(FOUNDER, Type.OPERATION, other_group)),
        pack(sign(STRANGER, Type.OPERATION, false_author)),
        pack(msgspec.structs.replace(broken, body=broken.body[:-1] + b"?")),
        pack(msgspec.structs.replace(broken, signature=bytes(64))),
        pack(sign(FOUNDER, Type.LEAVE, genuine.operation)),
        b"",
        b"\x93",
    ]
    for payload in forgeries:
        with pytest.raises(PeerFault):
            log.take(b"", payload)
    assert len(log) == 0
    assert len(GroupLog(opened(tmp_path), GROUP)) == 0


def test_gaps_are_remembered_until_they_heal(tmp_path: Path) -> None:
    """D18: a missing parent that no server has is a named gap."""
    writer = GroupLog(opened(tmp_path), GROUP)
    genesis = writer.prepare(FOUNDER, Kind.GENESIS, GENESIS)
    writer.fold(genesis)
    child = writer.prepare(FOUNDER, Kind.MEMBER, add_friend())
    log = GroupLog(opened(tmp_path), GROUP)
    log.take(b"", child.payload)
    assert list(log.missing()) == [genesis.id]
    log.name_gap(genesis.id)
    again = GroupLog(opened(tmp_path), GROUP)
    assert list(again.missing()) == []
    assert again.state.dag.gaps() == (genesis.id,)
    again.take(b"", genesis.payload)
    assert again.state.dag.gaps() == ()
    assert GroupLog(opened(tmp_path), GROUP).state.dag.gaps() == ()


def test_signed_type() -> None:
    assert signed_type(pack(sign(FOUNDER, Type.LEAVE, {}))) is Type.LEAVE
    for payload in (b"", pack((b"\xee", bytes(32), bytes(64))), pack((b"", bytes(32), bytes(64)))):
        with pytest.raises(PeerFault):
            signed_type(payload)
