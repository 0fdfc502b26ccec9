"""Fan-out (D13): stages, lanes, replacement of a node, and that nothing is ever forgotten."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holdfast.limits import BLOBS_PER_PUSH_MAX, FILL_CHECK_S, FILL_GRACE_S
from holdfast.logic.effects import Effects
from holdfast.logic.fleet.model import Role
from holdfast.logic.pool.fanout import (
    BULK,
    LOG,
    PUSH_BYTES_MAX,
    Acked,
    Added,
    Bounced,
    Down,
    Event,
    Fanout,
    Lacking,
    Reached,
    Refused,
    Released,
    Seated,
    Stage,
    Suspected,
    Up,
)
from holdfast.logic.pool.seats import Seats, Server

TAG = b"t" * 32
RELAYS = ("relay-1", "relay-2", "relay-3")
REPLICAS = ("replica-1", "replica-2", "replica-3")
NAMES = RELAYS + REPLICAS


def node(name: str, generation: int = 0) -> bytes:
    return f"{name}/{generation}".encode().ljust(32, b".")


def seats(**generations: int) -> Seats:
    """Three of each, on three providers; `relay_1=1` puts another node behind relay-1."""
    return Seats(
        tuple(
            Server(
                name,
                node(name, generations.get(name.replace("-", "_"), 0)),
                Role.RELAY if name in RELAYS else Role.REPLICA,
                (f"provider-{name[-1]}", "owner"),
            )
            for name in NAMES
        )
    )


def blob(number: int) -> bytes:
    return number.to_bytes(32, "big")


def with_blob(blob_class: int = LOG, size: int = 1_024) -> Fanout:
    fanout = Fanout(seats())
    fanout.step(Added(blob(1), TAG, size, blob_class), 0.0)
    return fanout


def ack(fanout: Fanout, name: str, now: float = 0.0, number: int = 1) -> Effects:
    return fanout.step(Acked(name, node(name), (blob(number),)), now)


def wanted_by(fanout: Fanout) -> set[str]:
    return {name for name in NAMES if fanout.pending(name)}


def test_a_log_blob_goes_to_all_six() -> None:
    fanout = with_blob(LOG)
    assert wanted_by(fanout) == set(NAMES)
    batch = fanout.take("relay-1")
    assert batch is not None
    assert (batch.tag, batch.blob_class, batch.blobs) == (TAG, LOG, (blob(1),))
    assert fanout.take("relay-1") is None


def test_stages_one_relay_two_relays_one_replica_two_replicas() -> None:
    """D13: stored = 2 of 3 relays, replicated = 2 of 3 replicas; nothing earlier."""
    fanout = with_blob()
    assert ack(fanout, "relay-1").persist == ()
    assert fanout.stage(blob(1)) is Stage.QUEUED
    assert ack(fanout, "replica-1").persist == ()
    assert ack(fanout, "relay-2").persist == (Reached(blob(1), Stage.STORED),)
    assert ack(fanout, "replica-3").persist == (Reached(blob(1), Stage.REPLICATED),)
    assert fanout.stage(blob(1)) is Stage.REPLICATED


def test_replicas_alone_do_not_make_replicated() -> None:
    """The words are ordered: queued < stored < replicated."""
    fanout = with_blob()
    for name in REPLICAS:
        ack(fanout, name)
    assert fanout.stage(blob(1)) is Stage.QUEUED
    ack(fanout, "relay-3")
    assert ack(fanout, "relay-1").persist[0] == Reached(blob(1), Stage.REPLICATED)


def test_the_outbox_keeps_a_blob_while_a_server_that_answers_lacks_its_copy() -> None:
    fanout = with_blob()
    for name in ("relay-1", "relay-2", "replica-1", "replica-2", "relay-3"):
        assert Released(blob(1)) not in ack(fanout, name).persist
    assert ack(fanout, "replica-3").persist == (Released(blob(1)),)
    assert fanout.stage(blob(1)) is None


def test_a_dead_server_holds_nothing_back() -> None:
    fanout = with_blob()
    for name in ("relay-1", "relay-2", "replica-1", "replica-2", "relay-3"):
        ack(fanout, name)
    assert fanout.step(Down("replica-3"), 1.0).persist == (Released(blob(1)),)
    assert fanout.step(Down("replica-3"), 1.0).persist == ()


def test_a_blob_waits_for_a_dead_server_until_it_is_replicated() -> None:
    """Defect 7 of the peers: no retry queue for failed secondaries."""
    fanout = with_blob()
    fanout.step(Down("replica-3"), 0.0)
    fanout.step(Down("replica-2"), 0.0)
    for name in (*RELAYS, "replica-1"):
        ack(fanout, name)
    assert fanout.stage(blob(1)) is Stage.STORED
    fanout.step(Up("replica-2"), 1_000.0)
    batch = fanout.take("replica-2")
    assert batch is not None
    assert batch.blobs == (blob(1),)
    persist = ack(fanout, "replica-2", 1_000.0).persist
    assert persist == (Reached(blob(1), Stage.REPLICATED), Released(blob(1)))


def test_two_copies_in_one_failure_domain_are_one() -> None:
    """D13, "on different failure domains": while a provider is lost, seats may share one."""
    shared = tuple(
        msgspec.structs.replace(server, domain=("provider-2", "owner"))
        if server.name == "relay-1"
        else server
        for server in seats().servers
    )
    fanout = Fanout(Seats(shared))
    fanout.step(Added(blob(1), TAG, 1_024, LOG), 0.0)
    ack(fanout, "relay-1")
    ack(fanout, "relay-2")
    assert fanout.stage(blob(1)) is Stage.QUEUED
    ack(fanout, "relay-3")
    assert fanout.stage(blob(1)) is Stage.STORED


def test_a_slot_with_one_domain_counts_servers() -> None:
    one = tuple(msgspec.structs.replace(s, domain=("p", "o")) for s in seats().servers)
    fanout = Fanout(Seats(one))
    fanout.step(Added(blob(1), TAG, 1_024, LOG), 0.0)
    ack(fanout, "relay-1")
    assert fanout.stage(blob(1)) is Stage.QUEUED
    ack(fanout, "relay-2")
    assert fanout.stage(blob(1)) is Stage.STORED


# --- bulk ----------------------------------------------------------------------------------------
def test_a_bulk_blob_goes_to_relays_and_replicas_are_asked() -> None:
    fanout = with_blob(BULK)
    assert wanted_by(fanout) == set(RELAYS)
    ack(fanout, "relay-1", 1.0)
    assert fanout.ask("replica-1", 1.0) == ()
    ack(fanout, "relay-2", 2.0)
    assert fanout.next_due("replica-1") == 2.0 + FILL_CHECK_S
    assert fanout.ask("replica-1", 1.9 + FILL_CHECK_S) == ()
    for name in ("replica-1", "replica-2"):
        assert fanout.ask(name, 2.0 + FILL_CHECK_S) == ((TAG, (blob(1),)),)
        ack(fanout, name, 8.0)
    assert fanout.stage(blob(1)) is Stage.REPLICATED
    assert ack(fanout, "relay-3", 8.0).persist == (Released(blob(1)),)


def test_a_replica_that_was_not_filled_in_time_is_pushed_to() -> None:
    fanout = with_blob(BULK)
    ack(fanout, "relay-1")
    ack(fanout, "relay-2")
    now, asked = 0.0, []
    while not fanout.pending("replica-1"):
        due = fanout.next_due("replica-1")
        assert due is not None
        assert due > now
        now = due
        assert fanout.ask("replica-1", now)
        asked.append(now)
        fanout.step(Lacking("replica-1", (blob(1),)), now)
    assert asked == [5.0, 10.0, 20.0, 40.0, FILL_GRACE_S]
    assert wanted_by(fanout) == {"relay-3", "replica-1"}


def test_a_bulk_blob_that_cannot_be_stored_in_time_goes_to_replicas_too() -> None:
    fanout = with_blob(BULK)
    fanout.step(Down("relay-1"), 0.0)
    fanout.step(Down("relay-2"), 0.0)
    ack(fanout, "relay-3")
    assert fanout.ask("replica-1", FILL_GRACE_S - 0.1) == ()
    assert fanout.ask("replica-1", FILL_GRACE_S) == ()
    assert fanout.pending("replica-1")


def test_an_unanswered_question_is_asked_again() -> None:
    fanout = with_blob(BULK)
    ack(fanout, "relay-1")
    ack(fanout, "relay-2")
    assert fanout.ask("replica-1", 5.0)
    assert fanout.ask("replica-1", 9.9) == ()
    assert fanout.ask("replica-1", 10.0)


def test_an_answer_that_comes_after_the_relays_changed_is_no_surprise() -> None:
    """Two relays are replaced one after the other while a replica is being asked."""
    fanout = with_blob(BULK)
    ack(fanout, "relay-1")
    ack(fanout, "relay-2")
    assert fanout.ask("replica-1", FILL_CHECK_S)
    fanout.step(Seated(seats(relay_1=1)), FILL_CHECK_S)
    assert fanout.stage(blob(1)) is Stage.QUEUED
    assert fanout.step(Lacking("replica-1", (blob(1),)), FILL_CHECK_S) == Effects()
    assert fanout.ask("replica-1", 2 * FILL_CHECK_S) == ()
    assert fanout.pending("replica-1"), "pushed to: no relay quorum fills it"


def test_questions_fit_a_request() -> None:
    fanout = Fanout(seats())
    for number in range(2_500):
        fanout.step(Added(blob(number), TAG, 100, BULK), 0.0)
        ack(fanout, "relay-1", 0.0, number)
        ack(fanout, "relay-2", 0.0, number)
    sizes = [len(ids) for _, ids in fanout.ask("replica-2", 5.0)]
    assert sizes == [1_000, 1_000, 500]


# --- batches -------------------------------------------------------------------------------------
def test_batches_fit_a_request_and_tags_take_turns() -> None:
    fanout = Fanout(seats())
    mebibyte = 1 << 20
    for number in range(10):
        fanout.step(Added(blob(number), TAG, mebibyte, BULK), 0.0)
    fanout.step(Added(blob(99), b"u" * 32, 1_024, LOG), 0.0)
    first, second, third = (fanout.take("relay-1") for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.size <= PUSH_BYTES_MAX
    assert len(first.blobs) == 4
    assert second.tag == b"u" * 32
    assert third.blobs == tuple(blob(n) for n in range(4, 8))


def test_many_small_blobs_fill_a_batch() -> None:
    fanout = Fanout(seats())
    for number in range(300):
        fanout.step(Added(blob(number), TAG, 1_024, LOG), 0.0)
    batch = fanout.take("replica-1")
    assert batch is not None
    assert len(batch.blobs) == BLOBS_PER_PUSH_MAX


def test_a_bounced_push_is_taken_again_and_an_old_bounce_is_not() -> None:
    fanout = with_blob()
    fanout.take("relay-1")
    fanout.step(Bounced("relay-1", (blob(1),)), 1.0)
    assert fanout.pending("relay-1")
    fanout.take("relay-1")
    ack(fanout, "relay-1")
    fanout.step(Bounced("relay-1", (blob(1), blob(2))), 1.0)
    assert not fanout.pending("relay-1")


# --- replacement, refusal, restart ---------------------------------------------------------------
def test_another_node_in_the_seat_starts_without_copies() -> None:
    """D13, D14: copies are counted on nodes, not on names."""
    fanout = with_blob()
    ack(fanout, "relay-1")
    ack(fanout, "relay-2")
    effects = fanout.step(Seated(seats(relay_1=1)), 5.0)
    assert effects.persist == (Reached(blob(1), Stage.QUEUED),)
    assert fanout.pending("relay-1")
    assert ack(fanout, "relay-1").persist == (), "a receipt of the node that is gone"
    fanout.take("relay-1")
    effects = fanout.step(Acked("relay-1", node("relay-1", 1), (blob(1),)), 6.0)
    assert effects.persist == (Reached(blob(1), Stage.STORED),)


def test_a_replaced_replica_is_asked_for_bulk_again() -> None:
    fanout = with_blob(BULK)
    for name in ("relay-1", "relay-2", "replica-1"):
        ack(fanout, name)
    fanout.step(Seated(seats(replica_1=1)), 50.0)
    assert fanout.ask("replica-1", 50.0) == ((TAG, (blob(1),)),)


def test_another_name_in_the_seat() -> None:
    moved = tuple(
        Server("relay-9", node("relay-9"), Role.RELAY, ("provider-9", "o"))
        if server.name == "relay-3"
        else server
        for server in seats().servers
    )
    fanout = with_blob()
    fanout.step(Seated(Seats(moved)), 1.0)
    assert fanout.pending("relay-9")
    assert not fanout.pending("relay-3")
    for late in (Acked("relay-3", node("relay-3"), (blob(1),)), Bounced("relay-3", (blob(1),))):
        assert fanout.step(late, 2.0) == Effects()
    assert fanout.step(Refused("relay-3", (blob(1),), "born"), 2.0) == Effects()
    assert fanout.step(Down("relay-3"), 2.0) == Effects()
    assert fanout.step(Up("relay-3"), 2.0) == Effects()
    assert fanout.take("relay-3") is None
    assert fanout.ask("relay-3", 99.0) == ()
    assert fanout.next_due("relay-3") is None


def test_relays_that_refuse_an_old_born_day_are_excused() -> None:
    """D11: relays refuse blobs born over two days off, replicas accept them."""
    fanout = with_blob(BULK)
    for name in RELAYS:
        fanout.take(name)
        fanout.step(Refused(name, (blob(1),), "born"), 0.0)
    assert fanout.stage(blob(1)) is Stage.QUEUED, "an excuse is no copy"
    assert wanted_by(fanout) == set(REPLICAS), "no relay will fill them"
    fanout.step(Lacking("replica-1", (blob(1),)), 0.0)
    assert ack(fanout, "replica-1").persist == ()
    assert ack(fanout, "replica-2").persist == (Reached(blob(1), Stage.REPLICATED),)
    assert ack(fanout, "replica-3").persist == (Released(blob(1)),)


def test_two_excused_relays_and_no_copy_are_not_stored() -> None:
    """D13: `stored` is copies on two relays, whatever the reason why there are none."""
    fanout = with_blob(LOG)
    for name in ("relay-1", "relay-2"):
        assert fanout.step(Refused(name, (blob(1),), "born"), 0.0) == Effects()
    assert fanout.stage(blob(1)) is Stage.QUEUED
    assert ack(fanout, "replica-1").persist == ()
    ack(fanout, "relay-3")
    assert fanout.stage(blob(1)) is Stage.QUEUED
    assert ack(fanout, "replica-2").persist[0] == Reached(blob(1), Stage.REPLICATED)


def test_other_refusals_are_no_copies() -> None:
    fanout = with_blob()
    for name in RELAYS:
        fanout.step(Refused(name, (blob(1),), "quota"), 0.0)
    for name in REPLICAS:
        ack(fanout, name)
    assert fanout.stage(blob(1)) is Stage.QUEUED
    assert [entry.refusals for entry in fanout.entries()] == [dict.fromkeys(RELAYS, "quota")]


def test_restart_with_copies_pushes_only_what_is_missing() -> None:
    fanout = Fanout(seats())
    copies = (("relay-1", node("relay-1")), ("relay-2", node("relay-2", 7)))
    fanout.step(Added(blob(1), TAG, 1_024, LOG, copies), 0.0)
    assert wanted_by(fanout) == set(NAMES) - {"relay-1"}
    assert fanout.step(Added(blob(1), TAG, 1_024, LOG), 0.0) == Effects()


class Slot(RuleBasedStateMachine):
    """Any order of events: a blob is released only when it is safe, and always can be."""

    @initialize()
    def start(self) -> None:
        self.generations = dict.fromkeys(NAMES, 0)
        self.fanout = Fanout(seats())
        self.disks: dict[bytes, set[bytes]] = {}
        self.flying: dict[str, list[tuple[int, tuple[bytes, ...]]]] = {n: [] for n in NAMES}
        self.added: set[bytes] = set()
        self.released: set[bytes] = set()
        self.now = 0.0

    def node(self, name: str) -> bytes:
        return node(name, self.generations[name])

    def seats_now(self) -> Seats:
        return seats(**{name.replace("-", "_"): g for name, g in self.generations.items()})

    def feed(self, event: Event) -> None:
        for change in self.fanout.step(event, self.now).persist:
            if isinstance(change, Released):
                holders = {n for n in NAMES if change.blob in self.disks.get(self.node(n), ())}
                assert len(holders & set(RELAYS)) >= 2
                assert len(holders & set(REPLICAS)) >= 2
                self.released.add(change.blob)

    @rule(number=st.integers(0, 30), blob_class=st.sampled_from((LOG, BULK)))
    def add(self, number: int, blob_class: int) -> None:
        if blob(number) not in self.added:
            self.added.add(blob(number))
            self.feed(Added(blob(number), TAG, 1_024, blob_class))

    @rule(name=st.sampled_from(NAMES))
    def take(self, name: str) -> None:
        batch = self.fanout.take(name)
        if batch is not None:
            self.flying[name].append((self.generations[name], batch.blobs))

    @precondition(lambda self: any(self.flying.values()))
    @rule(data=st.data(), lost=st.booleans())
    def land(self, data: st.DataObject, lost: bool) -> None:
        name = data.draw(st.sampled_from([n for n in NAMES if self.flying[n]]))
        generation, blobs = self.flying[name].pop()
        if lost:
            self.feed(Bounced(name, blobs))
            return
        target = node(name, generation)
        self.disks.setdefault(target, set()).update(blobs)
        self.feed(Acked(name, target, blobs))

    @rule(name=st.sampled_from(REPLICAS), seconds=st.floats(0.0, 50.0))
    def ask(self, name: str, seconds: float) -> None:
        self.now += seconds
        for _, blobs in self.fanout.ask(name, self.now):
            here = self.disks.get(self.node(name), set())
            self.feed(Acked(name, self.node(name), tuple(b for b in blobs if b in here)))
            self.feed(Lacking(name, tuple(b for b in blobs if b not in here)))

    @rule(name=st.sampled_from(NAMES), up=st.booleans())
    def toggle(self, name: str, up: bool) -> None:
        self.feed(Up(name) if up else Down(name))

    @rule(name=st.sampled_from(NAMES))
    def replace(self, name: str) -> None:
        self.generations[name] += 1
        self.feed(Seated(self.seats_now()))

    @rule()
    def peers_reconcile(self) -> None:
        union = set().union(*self.disks.values()) if self.disks else set()
        for name in NAMES:
            self.disks.setdefault(self.node(name), set()).update(union)

    @invariant()
    def everything_is_under_way_or_released(self) -> None:
        under_way = {entry.blob for entry in self.fanout.entries()}
        assert under_way | self.released == self.added
        assert not under_way & self.released

    def teardown(self) -> None:
        """A healthy slot always ends with everything released."""
        if not hasattr(self, "fanout"):
            return
        for name in NAMES:
            self.feed(Up(name))
        for _ in range(20):
            for name in NAMES:
                while self.flying[name]:
                    _, blobs = self.flying[name].pop()
                    self.feed(Bounced(name, blobs))
                self.ask(name, FILL_CHECK_S)
                while (batch := self.fanout.take(name)) is not None:
                    self.disks.setdefault(self.node(name), set()).update(batch.blobs)
                    self.feed(Acked(name, self.node(name), batch.blobs))
        assert self.released == self.added


Slot.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSlot = Slot.TestCase


@pytest.mark.parametrize("blob_class", [LOG, BULK])
def test_ten_thousand_blobs_in_linear_time(blob_class: int) -> None:
    fanout = Fanout(seats())
    for number in range(10_000):
        fanout.step(Added(blob(number), TAG, 1_024, blob_class), 0.0)
    for name in RELAYS:
        while (batch := fanout.take(name)) is not None:
            fanout.step(Acked(name, node(name), batch.blobs), 1.0)
    for name in REPLICAS:
        while (batch := fanout.take(name)) is not None:
            fanout.step(Acked(name, node(name), batch.blobs), 1.0)
        for _, blobs in fanout.ask(name, 10.0):
            fanout.step(Acked(name, node(name), blobs), 10.0)
    assert not list(fanout.entries())


def test_after_a_refused_batch_each_blob_goes_alone() -> None:
    fanout = Fanout(seats())
    for number in range(3):
        fanout.step(Added(blob(number), TAG, 1_024, LOG), 0.0)
    batch = fanout.take("relay-1")
    assert batch is not None
    fanout.step(Suspected("relay-1", batch.blobs), 0.0)
    fanout.step(Added(blob(9), TAG, 1_024, LOG), 0.0)
    taken = [fanout.take("relay-1") for _ in range(5)]
    assert [batch and batch.blobs for batch in taken] == [
        (blob(0),),
        (blob(1),),
        (blob(2),),
        (blob(9),),
        None,
    ]
    fanout.step(Suspected("relay-9", batch.blobs), 0.0)


def test_what_an_operation_names_is_sent_before_it() -> None:
    fanout = Fanout(seats())
    for number, blob_class in enumerate((BULK, BULK, LOG, BULK)):
        fanout.step(Added(blob(number), TAG, 1_024, blob_class), 0.0)
    taken = [fanout.take("relay-1") for _ in range(4)]
    assert [batch and (batch.blob_class, batch.blobs) for batch in taken] == [
        (BULK, (blob(0), blob(1))),
        (LOG, (blob(2),)),
        (BULK, (blob(3),)),
        None,
    ]
