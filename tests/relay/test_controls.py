"""Every defence of a relay, switched off: the attack it is there for succeeds (THREATS).

One row is a defence, how it is switched off in this process, and an attack through the relay's own
socket. Each attack is made twice, on a pool of its own: with the defence it fails, without it
succeeds. A defence whose attack fails either way is not what stops it, and its row fails.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.relay.attacks import (
    Stage,
    a_body_announced_too_large,
    a_body_that_does_not_come,
    a_group_reads_the_whole_slot,
    a_header_without_end,
    a_neighbour_sends_another_body,
    a_proof_made_for_another_server,
    a_proof_made_over_another_connection,
    a_proof_over_a_foreign_challenge,
    a_push_without_a_ticket,
    a_quiet_reader,
    a_receipt_that_proves_nothing,
    a_silent_connection,
    a_small_ticket_fills_the_disk,
    a_stranger_speaks_as_a_server,
    a_tag_without_a_ticket_reports,
    a_tag_without_blobs_reports,
    a_ticket_that_has_expired,
    a_ticket_that_nobody_signed,
    a_young_tag_reports,
    an_excluded_server_speaks,
    an_old_proof_again,
    born_in_the_future,
    born_long_ago,
    flood_of_a_peer,
    flood_of_a_tag,
    flood_of_strangers,
    many_bodies_at_once,
    one_group_fills_the_disk,
    one_tag_reports_many_times,
    one_ticket_for_two_tags,
    sessions_without_end,
    strangers_lock_the_neighbour_out,
    strangers_take_all_places_and_leave,
)
from tests.relay.harness import Pool

from holdfast.crypto.blindrsa import BlindPublicKey
from holdfast.errors import HoldfastError
from holdfast.fabric import session as fabric_session
from holdfast.logic.fleet.model import SlotRecord
from holdfast.relay import opening, verbs
from holdfast.relay.desk import Desk
from holdfast.relay.door import VERBS
from holdfast.relay.policy import RelayPolicy
from holdfast.relay.rates import Rates
from holdfast.relay.sessions import Challenges, Sessions
from holdfast.relay.tickets import TicketBook
from holdfast.rim import pool_server
from holdfast.rim.pool_server import PoolServer
from holdfast.rim.stalled import StalledConnections
from holdfast.rim.store.disk import DiskStore
from holdfast.rim.store.port import StorePolicy

Patch = pytest.MonkeyPatch


Attack = Callable[[Stage], Awaitable[object]]


class Row(NamedTuple):
    """`off` switches the defence off before the servers start, `off_at` in a running one. `setup`
    makes limits small enough to be reached, for both runs. An attack succeeds when it returns
    true, and fails when it returns false or is refused."""

    defence: str
    attack: Attack
    off: Callable[[Patch], object] = lambda patch: None
    off_at: Callable[[Stage], object] = lambda stage: None
    setup: Callable[[Patch], object] = lambda patch: None
    policy: RelayPolicy = RelayPolicy()
    report_tag_age_s: float = 0.0


def _nothing(*_: Any, **__: Any) -> None:
    """A check that checks nothing."""


async def _asleep(*_: Any) -> None:
    """A sweeper that sweeps nothing."""


def _set(where: object, name: str, put: object) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(where, name, put)


def _limit(name: str, put: object) -> Callable[[Patch], None]:
    """A limit, where the module that keeps to it reads it."""
    return lambda patch: patch.setattr(f"holdfast.{name}", put)


def _each_report_a_new_tag(stage: Stage) -> None:
    note = stage.desk.note_report
    stage.desk.note_report = lambda tag, name, region: note(os.urandom(32), name, region)


def _forget_spent(patch: Patch) -> None:
    """What was spent is forgotten at once."""
    admit = TicketBook.admit

    def forgetful(self: TicketBook, tag: bytes, data: bytes) -> Any:
        terms = admit(self, tag, data)
        self._database.run("delete from spent")
        return terms

    patch.setattr(TicketBook, "admit", forgetful)


class _Stopped:
    """A clock that stands still at the beginning of time."""

    def wall(self) -> float:
        return 0.0


def _stop_clock(stage: Stage) -> None:
    stage.desk.tickets._clock = _Stopped()  # type: ignore[assignment]


def _wide_open(patch: Patch) -> None:
    row = VERBS["reconcile"]
    patch.setitem(VERBS, "reconcile", row._replace(callers=VERBS["get"].callers))


def _quick(patch: Patch) -> None:
    """Seconds that a test can wait for."""
    for name, put in (
        ("pool_server.TLS_HANDSHAKE_S", 0.2),
        ("pool_server.BODY_READ_S", 60.0),
        ("stalled.STALLED_PERIOD_S", 0.05),
    ):
        patch.setattr(f"holdfast.rim.{name}", put)


_ANY_LEAF = type("AnyLeaf", (), {"__contains__": lambda self, leaf: True})()
_FEW = RelayPolicy(sessions_max=3)
_SLOW = RelayPolicy(
    tag_requests_per_s=0.01,
    tag_requests_burst=5,
    peer_requests_per_s=0.01,
    peer_requests_burst=5,
)
_SMALL = RelayPolicy(store=StorePolicy(group_bytes_max=3_000, reserve_bytes=0))
_DAY = 86_400.0

ROWS = (
    Row(
        "the bucket of everybody",
        flood_of_strangers,
        off=_set(Rates, "admit", _nothing),
        policy=RelayPolicy(requests_per_s=20),
    ),
    Row("the bucket of a tag", flood_of_a_tag, off=_set(Rates, "charge", _nothing), policy=_SLOW),
    Row("the bucket of a peer", flood_of_a_peer, off=_set(Rates, "charge", _nothing), policy=_SLOW),
    Row(
        "the quota of a group",
        one_group_fills_the_disk,
        off_at=lambda stage: stage.desk.store.allow(1 << 40),
        policy=_SMALL,
    ),
    Row(
        "the quota of a ticket",
        a_small_ticket_fills_the_disk,
        off=lambda patch: (
            patch.setattr(Desk, "store_bytes_max", 0),
            patch.setattr(DiskStore, "allow", _nothing),
        ),
    ),
    Row(
        "the number of sessions",
        sessions_without_end,
        off_at=lambda stage: setattr(stage.desk.sessions, "_sessions_max", 1 << 20),
        policy=_FEW,
    ),
    Row(
        "eviction of idle sessions",
        strangers_take_all_places_and_leave,
        off=_set(Sessions, "_evict", lambda self: False),
        setup=_limit("relay.sessions.SESSION_EVICT_S", 0.05),
        policy=_FEW,
    ),
    Row(
        "places for servers alone",
        strangers_lock_the_neighbour_out,
        off=_limit("relay.sessions.NODE_SESSIONS_MAX", 0),
        policy=_FEW,
    ),
    Row(
        "a proof names the server",
        a_proof_made_for_another_server,
        off=_set(opening, "check_node", _nothing),
    ),
    Row(
        "a proof names the TLS leaf",
        a_proof_made_over_another_connection,
        off_at=lambda stage: setattr(stage.desk, "leaves", lambda: _ANY_LEAF),
    ),
    Row(
        "a challenge is our own",
        a_proof_over_a_foreign_challenge,
        off=_set(Challenges, "check", _nothing),
    ),
    Row(
        "a challenge expires",
        an_old_proof_again,
        off=_limit("relay.sessions.CHALLENGE_LIFE_S", _DAY),
        setup=_limit("relay.sessions.CHALLENGE_LIFE_S", 0.1),
    ),
    Row(
        "servers are those of the record",
        a_stranger_speaks_as_a_server,
        off=_set(SlotRecord, "seat_of", lambda record, node: record.relays[0]),
    ),
    Row(
        "excluded servers are turned away",
        an_excluded_server_speaks,
        off=_set(Desk, "is_revoked", lambda desk, node: False),
    ),
    Row("verbs have callers", a_group_reads_the_whole_slot, off=_wide_open),
    Row(
        "born days are near today",
        born_in_the_future,
        off=_set(verbs, "BORN_SKEW_DAYS_MAX", 10_000),
    ),
    Row(
        "born days are not long past",
        born_long_ago,
        off=_set(verbs, "BORN_SKEW_DAYS_MAX", 10_000),
    ),
    Row(
        "an id is its body's hash",
        a_neighbour_sends_another_body,
        off=_set(fabric_session, "_checked", lambda blob, body: bytes(body)),
    ),
    Row(
        "clients verify receipts",
        a_receipt_that_proves_nothing,
        off=_set(fabric_session, "verify_receipts", _nothing),
    ),
    Row(
        "reports need stored blobs",
        a_tag_without_blobs_reports,
        off_at=lambda stage: setattr(stage.desk.store, "first_at", lambda slot, tag: 0.0),
    ),
    Row(
        "reports need blobs of some age",
        a_young_tag_reports,
        off_at=lambda stage: setattr(stage.desk, "report_tag_age_s", 0.0),
        report_tag_age_s=_DAY,
    ),
    Row(
        "reports need a ticket",
        a_tag_without_a_ticket_reports,
        off=_set(TicketBook, "required", False),
    ),
    Row(
        "a tag reports once",
        one_tag_reports_many_times,
        off_at=_each_report_a_new_tag,
    ),
    Row(
        "a push spends a ticket",
        a_push_without_a_ticket,
        off=_set(TicketBook, "may_push", lambda *_: True),
    ),
    Row("a ticket is spent once", one_ticket_for_two_tags, off=_forget_spent),
    Row(
        "a ticket is signed",
        a_ticket_that_nobody_signed,
        off=_set(BlindPublicKey, "verify", lambda *_: True),
    ),
    Row("a ticket expires", a_ticket_that_has_expired, off_at=_stop_clock),
    Row(
        "who says nothing is ended",
        a_silent_connection,
        off=_set(StalledConnections, "look", _asleep),
        setup=_quick,
    ),
    Row(
        "who falls silent is ended",
        a_quiet_reader,
        off=_set(StalledConnections, "look", _asleep),
        setup=lambda patch: (_quick(patch), patch.setattr(pool_server, "QUIET_S", 0.2)),
    ),
    Row(
        "a header comes in time",
        a_header_without_end,
        off=_limit("rim.pool_server.HEAD_READ_S", 60.0),
        setup=_limit("rim.pool_server.HEAD_READ_S", 0.2),
    ),
    Row(
        "a body comes in time",
        a_body_that_does_not_come,
        off=_set(PoolServer, "_sweep", _asleep),
        setup=_limit("rim.pool_server.BODY_READ_S", 0.2),
    ),
    Row(
        "a body is of a size",
        a_body_announced_too_large,
        off=lambda patch: (
            patch.setattr(pool_server, "REQUEST_BYTES_MAX", 1 << 40),
            patch.setattr(pool_server, "BODIES_IN_FLIGHT_BYTES_MAX", 1 << 40),
        ),
    ),
    Row(
        "bodies together are of a size",
        many_bodies_at_once,
        off=_limit("rim.pool_server.BODIES_IN_FLIGHT_BYTES_MAX", 1 << 40),
        setup=_limit("rim.pool_server.BODIES_IN_FLIGHT_BYTES_MAX", 10_000),
    ),
)


async def _succeeds(home: Path, row: Row, *, off: bool) -> bool:
    """Whether the row's attack succeeds on a pool of its own."""
    age_s = row.report_tag_age_s
    async with Pool(home, policy=row.policy, background=False, report_tag_age_s=age_s) as pool:
        stage = Stage(pool, await pool.seat(2, 0))
        if off:
            row.off_at(stage)
        try:
            return bool(await row.attack(stage))
        except HoldfastError:
            return False


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.defence)
def test_the_attack_fails_and_without_the_defence_it_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: Row
) -> None:
    for off in (False, True):
        with monkeypatch.context() as patch:
            row.setup(patch)
            if off:
                row.off(patch)
            found = asyncio.run(_succeeds(tmp_path / str(off), row, off=off))
            assert found is off, "not stopped" if found else "something else stops it"


def test_rows_differ() -> None:
    assert len({row.defence for row in ROWS}) == len(ROWS) >= 30
