"""What clients are told of a node: never an address that nobody can dial."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.cli.node_join import told_address
from holdfast.cli.node_run import _moved
from holdfast.errors import UsageError
from holdfast.logic.fleet.model import Role
from holdfast.node.home import Home, Member

HQ = "127.0.0.1:7400"
MEMBER = Member(
    network=b"n" * 16,
    node=b"i" * 32,
    name="relay-eu-001",
    role=Role.RELAY,
    region="eu",
    provider="alder",
    owner="ann",
    hq=(HQ,),
    listen="0.0.0.0:7443",
    heartbeat_s=30.0,
    addresses=("203.0.113.5:7443",),
)


@pytest.mark.parametrize(
    ("listen", "advertise", "told"),
    [
        ("203.0.113.5:7443", "", "203.0.113.5:7443"),
        ("0.0.0.0:7443", "", "127.0.0.1:7443"),  # from where it reaches headquarters
        ("0.0.0.0:7443", "203.0.113.5:443", "203.0.113.5:443"),
        ("10.0.0.2:7443", "203.0.113.5:443", "203.0.113.5:443"),
        ("[::1]:7443", "", "[::1]:7443"),
    ],
)
def test_what_clients_are_told(listen: str, advertise: str, told: str) -> None:
    assert told_address(listen, advertise, HQ) == told


@pytest.mark.parametrize(
    ("listen", "advertise", "words"),
    [
        ("0.0.0.0:0", "", "give a port"),
        ("relay.example.net:7443", "", "is a name"),
        ("0.0.0.0:7443", "relay.example.net:7443", "is a name"),
        ("0.0.0.0:7443", "0.0.0.0:7443", "nobody can dial"),
        ("224.0.0.1:7443", "", "nobody can dial"),
    ],
)
def test_what_nobody_could_dial_is_refused(listen: str, advertise: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        told_address(listen, advertise, HQ)


def test_what_the_owner_said_is_remembered(tmp_path: Path) -> None:
    home = Home(tmp_path / "node")
    moved = _moved(home, MEMBER, "", "203.0.113.9:443")
    assert moved.addresses == ("203.0.113.9:443",)
    assert home.member() == moved
    assert _moved(home, moved, "", "").addresses == ("203.0.113.9:443",)


def test_a_machine_whose_address_changed_tells_the_new_one(tmp_path: Path) -> None:
    """Without --advertise, and listening everywhere: what a router gave it last night."""
    assert _moved(Home(tmp_path / "node"), MEMBER, "", "").addresses == ("127.0.0.1:7443",)
