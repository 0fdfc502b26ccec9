"""The keyring: found from the words alone; statements and records beside its operations."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.crypto.keys import SigningKey
from holdfast.crypto.phrase import Phrase
from holdfast.device.keyring import (
    KeyringLog,
    genesis_entries,
    keyring_group,
    member_entries,
    staple_payload,
    state_device,
)
from holdfast.device.state import SCHEMA
from holdfast.errors import PeerFault
from holdfast.fabric.database import Database
from holdfast.logic.group.operation import Kind
from holdfast.wire.codec import pack
from holdfast.wire.envelope import sign
from holdfast.wire.person import CARRIER, READER, DeviceStatement, person_id, verify_statement
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type

PHRASE = Phrase.from_entropy(bytes(range(32)))
ROOT = PHRASE.root()
STRANGER = SigningKey(b"s" * 32)
DEVICE, OTHER = (SigningKey(bytes([n]) * 32) for n in (7, 8))


def opened(path: Path) -> KeyringLog:
    return KeyringLog(Database(path / "device.db", SCHEMA), ROOT.public)


def statement(name: str = "phone", n: int = 1, roles: tuple[str, ...] = (READER,)) -> bytes:
    return pack(state_device(ROOT, DEVICE.public, name, n, 0, roles))


def test_the_group_id_and_the_genesis_follow_from_the_words(tmp_path: Path) -> None:
    """Two devices set up apart write the same genesis, so they make one keyring."""
    first, second = opened(tmp_path), opened(tmp_path)
    entries = genesis_entries(ROOT.public)
    written = first.prepare(ROOT, Kind.GENESIS, entries)
    assert written == second.prepare(ROOT, Kind.GENESIS, entries)
    first.take(b"", written.payload)
    assert ROOT.public in first.state.members
    assert first.group == keyring_group(ROOT.public)
    assert keyring_group(STRANGER.public) != first.group
    assert len(person_id(ROOT.public)) == 32
    forged = first.prepare(STRANGER, Kind.MEMBER, member_entries((STRANGER.public, "x")))
    first.take(b"", forged.payload)
    assert STRANGER.public not in first.state.members


def test_the_newest_statement_about_a_device_counts(tmp_path: Path) -> None:
    """D7: devices are members by signed statements; removal is a later one."""
    log = opened(tmp_path)
    for payload in (statement("phone", 2), statement("old name", 1)):
        log.take(b"", payload)
    assert [device.name for device in log.devices()] == ["phone"]
    assert log.device_n(DEVICE.public) == 2
    assert log.device_n(OTHER.public) == 0
    again = opened(tmp_path)
    assert again.devices() == log.devices()
    again.take(b"", statement("phone", 3, roles=()))
    assert again.devices() == ()
    assert opened(tmp_path).devices() == ()


@pytest.mark.parametrize(
    "body",
    [
        DeviceStatement(ROOT.public, DEVICE.public, "x", (READER,), 1, 0),
        DeviceStatement(STRANGER.public, DEVICE.public, "x", (READER,), 1, 0),
    ],
)
def test_only_the_person_root_states_devices(tmp_path: Path, body: DeviceStatement) -> None:
    with pytest.raises(PeerFault):
        opened(tmp_path).take(b"", pack(sign(STRANGER, Type.DEVICE_STATEMENT, body)))
    assert opened(tmp_path).devices() == ()


@pytest.mark.parametrize(
    "body",
    [
        DeviceStatement(ROOT.public, b"short", "x", (READER,), 1, 0),
        DeviceStatement(ROOT.public, DEVICE.public, "x" * 65, (READER,), 1, 0),
        DeviceStatement(ROOT.public, DEVICE.public, "two\nlines", (CARRIER,), 1, 0),
        DeviceStatement(ROOT.public, DEVICE.public, "x", ("admiral",), 1, 0),
    ],
)
def test_statements_are_checked(body: DeviceStatement) -> None:
    with pytest.raises(PeerFault):
        verify_statement(sign(ROOT, Type.DEVICE_STATEMENT, body))


def test_records_lie_there_for_whoever_verifies_them(tmp_path: Path) -> None:
    log = opened(tmp_path)
    staples = [Staple(sign(STRANGER, Type.SLOT_RECORD, {"n": n}), b"proof") for n in (1, 2)]
    for staple in staples:
        log.take(b"", staple_payload(staple))
        log.take(b"", staple_payload(staple))
    assert log.holds(staples[0])
    again = opened(tmp_path)
    assert again.staples() == tuple(staples)
    assert not again.holds(Staple(staples[0].signed, b"other proof"))


@pytest.mark.parametrize("payload", [b"", b"\x82", b"\x93", b"\xc0", pack({"signed": 1})])
def test_garbage_is_a_peer_fault(tmp_path: Path, payload: bytes) -> None:
    with pytest.raises(PeerFault):
        opened(tmp_path).take(b"", payload)
