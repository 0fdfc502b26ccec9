"""What a subscription says, and when it says nothing any more."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from holdfast.errors import UsageError
from holdfast.logic.access.epochs import announced, opened
from holdfast.logic.access.model import (
    Cell,
    CellState,
    Device,
    Entry,
    ExitPolicy,
    Member,
    Standing,
    Transport,
    check_domain,
    check_label,
    check_policy,
)
from holdfast.logic.access.subscription import (
    Face,
    SubscriptionState,
    SubscriptionView,
    Usage,
    view_of,
)

CELL = opened(Cell("c1", "edge.example.net", "core.example.net", (), 0.0), bytes(8), 0.0, 0.0)
MEMBER = Member("m1", quota_bytes=1_000, expires_at=500, devices_max=3)
DEVICE = Device("d1", "m1", "5783a3e7-e373-51cd-8642-c83782b807c5", "c1", bytes(32), label="phone")
ENTRIES = (
    Entry("entry-eu-002", b"2" * 32, "c1", "eu", "bob", ("[2001:db8::1]:443",)),
    Entry("entry-eu-001", b"1" * 32, "c1", "eu", "ada", ("192.0.2.1:443", "192.0.2.9:443")),
    Entry("entry-eu-003", b"3" * 32, "c2", "eu", "ada", ("192.0.2.3:443",)),
    Entry("entry-eu-004", b"4" * 32, "c1", "eu", "ada", ("192.0.2.4:443",), alive=False),
)


def view(
    member: Member = MEMBER,
    device: Device = DEVICE,
    cell: Cell = CELL,
    usage: Usage = Usage(),  # noqa: B008
    now: float = 1.0,
    entries: Sequence[Entry] = ENTRIES,
) -> SubscriptionView:
    return view_of(
        face=Face("net"),
        member=member,
        device=device,
        devices=1,
        cell=cell,
        entries=entries,
        usage=usage,
        now=now,
    )


def test_every_serving_entry_of_the_cell_by_both_transports() -> None:
    lines = view().endpoints
    assert [(line.host, line.port, line.transport) for line in lines] == [
        ("192.0.2.1", 443, Transport.GRPC),
        ("2001:db8::1", 443, Transport.GRPC),
        ("192.0.2.1", 443, Transport.XHTTP),
        ("2001:db8::1", 443, Transport.XHTTP),
    ]
    assert {line.sni for line in lines} == {"edge.example.net"}
    assert lines[0].path == CELL.newest().service_name()
    assert lines[-1].path == CELL.newest().path()
    assert len({line.name for line in lines}) == 4


def test_when_all_are_silent_all_are_named() -> None:
    """Then it is headquarters that hears nobody: a list of none would help no client."""
    silent = [msgspec.structs.replace(item, alive=False) for item in ENTRIES]
    assert len({line.host for line in view(entries=silent).endpoints}) == 3


def test_no_name_of_an_owner_or_node_reaches_a_client() -> None:
    text = repr(view())
    assert not any(word in text for word in ("ada", "bob", "entry-eu"))


@pytest.mark.parametrize(
    ("member", "device", "usage", "now", "state"),
    [
        (MEMBER, DEVICE, Usage(), 500.0, SubscriptionState.EXPIRED),
        (MEMBER, DEVICE, Usage(400, 600), 1.0, SubscriptionState.OVER_QUOTA),
        (
            msgspec.structs.replace(MEMBER, standing=Standing.SUSPENDED),
            DEVICE,
            Usage(),
            1.0,
            SubscriptionState.SUSPENDED,
        ),
        (
            MEMBER,
            msgspec.structs.replace(DEVICE, standing=Standing.REVOKED),
            Usage(),
            1.0,
            SubscriptionState.REVOKED,
        ),
    ],
)
def test_who_may_not_be_served_gets_no_endpoint_and_no_credential(
    member: Member, device: Device, usage: Usage, now: float, state: SubscriptionState
) -> None:
    found = view(member, device, usage=usage, now=now)
    assert (found.state, found.endpoints, found.credential) == (state, (), "")


def test_an_isolated_cell_has_no_endpoints() -> None:
    assert view(cell=msgspec.structs.replace(CELL, state=CellState.ISOLATED)).endpoints == ()


def test_the_digest_changes_with_the_configuration_and_not_with_usage() -> None:
    turned = announced(opened(CELL, b"12345678", 0.0, 10.0), 100.0)
    assert view(usage=Usage(1, 2)).digest == view().digest
    assert view(cell=turned).digest != view().digest


def test_names_domains_and_policies_are_checked() -> None:
    for wrong in ("", "1a", "A", "a" * 33):
        with pytest.raises(UsageError):
            check_label(wrong)
    for wrong in ("nodots", "UPPER.net", "a..b", "-a.net"):
        with pytest.raises(UsageError):
            check_domain(wrong)
    for policy in (
        ExitPolicy(ports=(0,)),
        ExitPolicy(networks_denied=("198.51.100.1/24",)),
        ExitPolicy(domains_denied=("x",)),
        ExitPolicy(reserve_bytes=-1),
    ):
        with pytest.raises(UsageError):
            check_policy(policy)
    assert check_policy(ExitPolicy()).ports_denied == (25, 465, 587)
