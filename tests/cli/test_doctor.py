"""Where the doctor draws its lines. `tests/system/test_doctor.py` plants real faults; here are
those that no machine can be given (a disk that lies about sync), and the borders themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from holdfast.cli.doctor import device, hq, links, node, place
from holdfast.cli.doctor.finding import Finding, Level, as_text, bad, needs_person, ok
from holdfast.device.folders import Figures
from holdfast.hq.brain_view import FleetView, ServerView
from holdfast.limits import DISK_RESERVE_BYTES, GIB
from holdfast.limits.doctor import DESCRIPTORS_MIN, DISK_FREE_BYTES_MIN
from holdfast.logic.fleet.model import Load, Role, Tier
from holdfast.logic.fleet.rows import ServerState
from holdfast.rim.probe import DiskTruth, _share
from holdfast.wire.hq import Standing

WELL = DiskTruth("ext4", 50 * GIB, 100 * GIB, 300.0, 2_000.0)
HERE = Path("/srv/holdfast")


def levels(findings: list[Finding]) -> dict[str, Level]:
    return {finding.check: finding.level for finding in findings}


@pytest.mark.parametrize(
    ("truth", "check", "level"),
    [
        (WELL, "disk", Level.OK),
        (WELL, "fsync", Level.OK),
        (replace(WELL, free_bytes=DISK_FREE_BYTES_MIN - 1), "disk", Level.BAD),
        (replace(WELL, free_bytes=GIB), "disk", Level.NOTE),
        (replace(WELL, sync_p50_us=2.0), "fsync", Level.BAD),
        (replace(WELL, sync_p50_us=600_000.0), "fsync", Level.BAD),
        (replace(WELL, kind="tmpfs"), "fsync", Level.BAD),
        (replace(WELL, kind="nfs4"), "fsync", Level.NOTE),
        (replace(WELL, fault="Read-only file system"), "disk", Level.BAD),
    ],
)
def test_disks(truth: DiskTruth, check: str, level: Level) -> None:
    """A sync that takes two microseconds wrote nothing: that is the lie that one can measure."""
    assert levels(list(place.disk(HERE, truth)))[check] is level
    assert DISK_FREE_BYTES_MIN > DISK_RESERVE_BYTES
    assert DESCRIPTORS_MIN > 10_000


def test_one_wrong_clock_among_many_is_named_and_ours_is_not_blamed() -> None:
    skews = links.Skews()
    for name, theirs in (("a", 1_000.0), ("b", 1_000.5), ("c", 1_000.2), ("d", 4_600.0)):
        skews.add(name, theirs, 1_000.0)
    found = list(skews.findings())
    assert [(f.check, f.level, f.subject) for f in found] == [
        ("clock", Level.OK, ""),
        ("clock", Level.BAD, "d"),
    ]


def test_a_majority_against_us_is_our_clock() -> None:
    skews = links.Skews()
    for name in "abc":
        skews.add(name, 1_000.0, 1_090.0)
    (found,) = skews.findings()
    assert found.level is Level.BAD
    assert "ahead" in found.text


def test_nobody_to_ask_is_not_well() -> None:
    (found,) = links.Skews().findings()
    assert found.level is Level.NOTE


def test_a_public_port_that_others_do_not_reach() -> None:
    standing = Standing("relay-eu-001", Tier.GREEN, 0, 0.0, ("203.0.113.5:7443",))
    assert levels(list(node._standing(standing))) == {"public port": Level.OK}
    (found,) = node._standing(replace(standing, tier=Tier.ORANGE, witnesses=2))
    assert found.level is Level.BAD
    assert "203.0.113.5:7443" in found.next


def test_versions_and_key_exchanges_are_notes() -> None:
    assert list(links.versions("a", "")) == []
    (found,) = links.versions("a", "0.0.1")
    assert (found.level, found.check) == (Level.NOTE, "version")
    assert next(iter(links.exchange("a", "X25519MLKEM768"))).level is Level.OK
    assert next(iter(links.exchange("a", "X25519"))).level is Level.NOTE


def server(tier: Tier, owner: str) -> ServerView:
    return ServerView(
        name="relay-eu-001",
        role=Role.RELAY,
        region="eu",
        provider="alder",
        owner=owner,
        state=ServerState.ACTIVE,
        tier=tier,
        tier_at=0.0,
        first_failed_at=0.0,
        node="",
        addresses=("203.0.113.5:7443",),
        seated_at=0.0,
        filled=True,
        draining=False,
        silent=False,
        slots=1,
        groups=1,
        witnesses=0,
        load=Load(),
    )


def fleet(*servers: ServerView) -> FleetView:
    return FleetView(
        version=1,
        at=0.0,
        network="",
        domain="example.net",
        term=1,
        scale=1.0,
        servers=servers,
        providers=(),
        slots=(),
        debts=(),
        freeze=None,
        intents=(),
        timeline=(),
        relays_min=0,
        replicas_min=0,
    )


def test_a_dead_machine_of_an_owner_comes_with_its_owner_and_a_command() -> None:
    """D2: headquarters cannot respawn it."""
    found = [f for f in hq.fleet(fleet(server(Tier.RED, "ann"))) if f.check == "server"]
    assert [f.level for f in found] == [Level.BAD]
    assert "ann's machine" in found[0].text
    assert "--name relay-eu-001" in found[0].next
    assert [f for f in hq.fleet(fleet(server(Tier.GREEN, "ann"))) if f.check == "server"] == []
    silent = replace(server(Tier.GREEN, "ann"), silent=True)
    assert needs_person(hq.fleet(fleet(silent)))


def test_a_refused_record_comes_with_the_way_on() -> None:
    folder = Figures("docs", "g", "")
    assert list(device.shared(folder)) == []
    (found,) = device.shared(replace(folder, record_refused="too different"))
    assert found.level is Level.BAD
    assert "device follow" in found.next
    assert needs_person(device.shared(replace(folder, path="/no/such/place")))


def test_the_group_of_a_server_hello_is_read_where_it_stands() -> None:
    """RFC 8446 §4.1.3, with a session id, and key_share after another extension."""
    extensions = bytes.fromhex("002b000203040033000411ec0000")
    body = b"\x03\x03" + bytes(32) + b"\x20" + bytes(32) + b"\x13\x01" + b"\x00"
    body += len(extensions).to_bytes(2) + extensions
    assert _share(b"\x02" + len(body).to_bytes(3) + body) == 0x11EC
    short = b"\x03\x03" + bytes(32) + b"\x00" + b"\x13\x01" + b"\x00" + b"\x00\x00"
    assert _share(b"\x02" + len(short).to_bytes(3) + short) == 0


def test_the_text_shows_what_needs_a_person() -> None:
    text = as_text("node x", [ok("disk", "fine"), bad("clock", "an hour off", "set it")])
    assert "BAD  clock" in text
    assert "-> set it" in text
    assert text.endswith("1 of 2 need you")
    assert as_text("node x", [ok("disk", "fine")]).endswith("nothing needs you")
