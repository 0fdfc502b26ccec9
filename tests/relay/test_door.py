"""The front door through the public port: authorization, limits, hostile requests (§9.1, §11.3)."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from tests.relay.harness import Pool, today

from holdfast.crypto.blob import HEADER, seal
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import HoldfastError, PeerFault
from holdfast.fabric.session import Session
from holdfast.limits import BLOB_BYTES_MAX, BLOBS_PER_PUSH_MAX, IDS_PER_REQUEST_MAX
from holdfast.logic.fleet.model import SlotRecord
from holdfast.relay.door import VERBS, Door
from holdfast.relay.policy import RelayPolicy
from holdfast.relay.sessions import Kind
from holdfast.relay.verbs import canary_tag
from holdfast.rim.pool_client import tls_context
from holdfast.rim.store import StorePolicy
from holdfast.wire.faults import Refusal
from holdfast.wire.frame import join, split
from holdfast.wire.pool import (
    AttestRequest,
    BlobClass,
    Empty,
    ErrorReply,
    GetReply,
    GetRequest,
    HaveRequest,
    HelloReply,
    HelloRequest,
    ListRequest,
    PullRequest,
    PushReply,
    PushRequest,
    ReconcileRequest,
    ReportRequest,
    WatchReply,
    WatchRequest,
)

RELAY = "relay-eu-001"
REPLICA = "replica-eu-001"
Case = Callable[[Pool, SlotRecord], Awaitable[None]]


def with_pool(home: Path, case: Case, policy: RelayPolicy | None = None) -> None:
    """Run `case` over one relay and one replica that share a slot."""

    async def main() -> None:
        async with Pool(home, policy=policy) as pool:
            await case(pool, await pool.seat(1, 1))

    asyncio.run(main())


def requests_of(token: bytes) -> dict[str, Any]:
    """A well-formed request of every verb that takes a session."""
    return {
        "push": PushRequest(token, BlobClass.LOG, (200,)),
        "pull": PullRequest(token, bytes(16), 0, 1),
        "get": GetRequest(token, (bytes(32),)),
        "have": HaveRequest(token, (bytes(32),)),
        "list": ListRequest(token, 0, 1),
        "reconcile": ReconcileRequest(token),
        "report": ReportRequest(token, "relay-eu-009", 0.0, "eu"),
        "attest": AttestRequest(token, ()),
    }


# --- Who may do what -----------------------------------------------------------------------------
def test_every_verb_for_every_caller(tmp_path: Path) -> None:
    """Default deny (reliability.md 2.2: CVE-2026-30836): every verb x every caller."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        session = await pool.session(RELAY, pool.era().access, record.slot)
        node = await pool.peer_session(RELAY, pool.servers[REPLICA], record.slot)
        ended = await pool.session(RELAY, pool.era().access, record.slot)
        sessions = pool.servers[RELAY].running.desk.sessions
        sessions.drop(lambda caller: caller.token == ended.token)
        for token, kind in (
            (b"", None),
            (bytes(16), None),
            (ended.token, None),
            (session.token, Kind.GROUP),
            (node.token, Kind.NODE),
        ):
            for verb, request in requests_of(token).items():
                body = [bytes(200)] if verb == "push" else []
                code = await _code(session.client.call(verb, request, Empty, body))
                if kind is None:
                    assert code == "session", verb
                elif kind not in VERBS[verb].callers:
                    assert code == "forbidden", verb
                else:
                    assert code not in ("session", "verb", "forbidden"), verb

    with_pool(tmp_path, case)


async def _code(work: Awaitable[object]) -> str:
    """The code with which it is refused; empty when it is not."""
    try:
        await work
    except (PeerFault, Refusal) as refusal:
        return refusal.code
    return ""


async def _first_refusal(works: Iterable[Awaitable[object]]) -> Refusal:
    """The first refusal among calls made one after another."""
    for work in works:
        try:
            await work
        except Refusal as refusal:
            return refusal
    raise AssertionError("nothing was refused")


def test_the_table_names_every_verb_of_the_protocol() -> None:
    """D12."""
    assert set(VERBS) == {
        "hello",
        "open",
        "push",
        "pull",
        "get",
        "have",
        "list",
        "watch",
        "reconcile",
        "report",
        "attest",
    }
    open_to_all = {verb for verb, row in VERBS.items() if not row.callers}
    assert open_to_all == {"hello", "open", "watch"}


@pytest.mark.parametrize("verb", ["", "health", "Push", "push/", "../push", "push%00", "drop"])
def test_an_unknown_verb_is_refused(tmp_path: Path, verb: str) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        client = pool.client(RELAY)
        with pytest.raises(HoldfastError) as refused:
            await client.call(verb, HelloRequest((1,)), HelloReply)
        assert getattr(refused.value, "code", "verb") in ("verb", "malformed")

    with_pool(tmp_path, case)


def test_a_version_we_do_not_speak_is_refused(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        client = pool.client(RELAY)
        for versions in ((), (2,), (0, 7)):
            with pytest.raises(PeerFault) as refused:
                await client.call("hello", HelloRequest(versions), HelloReply)
            assert refused.value.code == "version"
        assert (await client.call("hello", HelloRequest((2, 1)), HelloReply))[0].version == 1

    with_pool(tmp_path, case)


def test_a_session_reads_and_writes_its_own_tag_only(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        mine, theirs = pool.era(), pool.era()
        here = await pool.session(RELAY, mine.access, record.slot)
        there = await pool.session(RELAY, theirs.access, record.slot)
        blob = seal(theirs, 1, b"theirs", today())
        await there.push(BlobClass.LOG, [blob])
        assert await here.have([hash_bytes(blob)]) == [False]
        assert await here.get([hash_bytes(blob)]) == {}
        assert (await here.pull(0, 10))[0].items == ()
        for verb, request, reply in (
            ("get", GetRequest(here.token, (hash_bytes(blob),), tag=theirs.tag), GetReply),
            ("push", PushRequest(here.token, BlobClass.LOG, (len(blob),), theirs.tag), PushReply),
        ):
            with pytest.raises(PeerFault) as refused:
                await here.client.call(verb, request, reply, [blob] if verb == "push" else [])
            assert refused.value.code == "forbidden"

    with_pool(tmp_path, case)


def test_a_tag_of_another_slot_is_another_group(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        other = await pool.seat(1, 1)
        era = pool.era()
        blob = seal(era, 1, b"x", today())
        await (await pool.session(RELAY, era.access, record.slot)).push(BlobClass.LOG, [blob])
        there = await pool.session(RELAY, era.access, other.slot)
        assert there.head == 0
        assert await there.have([hash_bytes(blob)]) == [False]

    with_pool(tmp_path, case)


# --- Servers of the slot -------------------------------------------------------------------------
def test_only_servers_of_the_slot_may_speak_as_servers(tmp_path: Path) -> None:
    """D23: reconcile only between node ids in the current record."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        stranger = await pool.add(pool.servers[RELAY].role, 7)
        for server in (stranger, pool.servers[RELAY]):
            with pytest.raises(PeerFault) as refused:
                await pool.peer_session(RELAY, server, record.slot)
            assert refused.value.code == "forbidden"
        with pytest.raises(PeerFault) as group:
            await Session.open(pool.client(RELAY), pool.era().access, record.slot, peer=True)
        assert group.value.code == "forbidden"

    with_pool(tmp_path, case)


def test_a_server_that_lost_its_seat_loses_its_sessions(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        session = await pool.peer_session(RELAY, pool.servers[REPLICA], record.slot)
        await session.days()
        pool.assign(record.slot, [RELAY])
        with pytest.raises(PeerFault) as refused:
            await session.days()
        assert refused.value.code == "forbidden"

    with_pool(tmp_path, case)


def test_a_revoked_node_is_cut_off_at_once(tmp_path: Path) -> None:
    """D6: live connections are cut; a node on the list opens nothing."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        session = await pool.peer_session(RELAY, pool.servers[REPLICA], record.slot)
        await session.days()
        group = await pool.session(RELAY, pool.era().access, record.slot)
        pool.revoke(pool.servers[REPLICA])
        with pytest.raises(PeerFault) as refused:
            await session.days()
        assert refused.value.code == "forbidden"
        assert await group.have([bytes(32)]) == [False]
        again = await pool.session(RELAY, pool.era().access, record.slot)
        assert again.revocations.n == 1

    with_pool(tmp_path, case)


def test_a_node_pushes_canaries_and_nothing_else(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        replica = pool.servers[REPLICA]
        session = await pool.peer_session(RELAY, replica, record.slot)
        era = pool.era()
        blob = seal(era, 1, b"x", today())
        mine = canary_tag(replica.node)
        for blob_class, tag in (
            (BlobClass.LOG, mine),
            (BlobClass.BULK, era.tag),
            (BlobClass.CANARY, era.tag),
        ):
            with pytest.raises(PeerFault) as refused:
                await session.push(blob_class, [blob], tag=tag)
            assert refused.value.code == "forbidden"
        with pytest.raises(PeerFault):
            await session.push(BlobClass.CANARY, [blob])
        await session.push(BlobClass.CANARY, [blob], tag=mine)
        assert await session.get([hash_bytes(blob)], tag=mine)
        group = await pool.session(RELAY, era.access, record.slot)
        with pytest.raises(PeerFault) as refused:
            await group.push(BlobClass.CANARY, [blob])
        assert refused.value.code == "forbidden"

    with_pool(tmp_path, case)


# --- Limits --------------------------------------------------------------------------------------
def test_the_quota_of_a_group(tmp_path: Path) -> None:
    """Seed 004 §11.3 `max_group_storage`; D17."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        session = await pool.session(RELAY, era.access, record.slot)
        assert session.quota_bytes == 5_000
        for n in range(4):
            await session.push(BlobClass.LOG, [seal(era, 1, b"%d" % n, today())])
        with pytest.raises(PeerFault) as refused:
            await session.push(BlobClass.LOG, [seal(era, 1, b"over", today())])
        assert refused.value.code == "quota"
        await session.reopen(session.token)
        assert session.used_bytes == 4_096
        other = pool.era()
        neighbour = await pool.session(RELAY, other.access, record.slot)
        await neighbour.push(BlobClass.LOG, [seal(other, 1, b"x", today())])

    with_pool(
        tmp_path, case, RelayPolicy(store=StorePolicy(group_bytes_max=5_000, reserve_bytes=0))
    )


def test_the_rate_of_a_tag(tmp_path: Path) -> None:
    """D17: a token bucket of requests plus 64 KiB units, shared by all sessions of a tag."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        one = await pool.session(RELAY, era.access, record.slot)
        two = await pool.session(RELAY, era.access, record.slot)
        asked = (session.have([bytes(32)]) for _ in range(12) for session in (one, two))
        refusal = await _first_refusal(asked)
        assert refusal.code == "rate"
        assert 0 < refusal.retry_after_s <= 10
        assert pool.servers[RELAY].running.desk.faults == 0, "its own doing, not the server's"
        neighbour = await pool.session(RELAY, pool.era().access, record.slot)
        await neighbour.have([bytes(32)])
        large = [seal(era, 2, bytes((n,)) * 700_000, today()) for n in range(2)]
        await _first_refusal(neighbour.push(BlobClass.BULK, [blob]) for blob in large)

    with_pool(tmp_path, case, RelayPolicy(tag_requests_per_s=0.1, tag_requests_burst=20))


def test_the_rate_of_everybody(tmp_path: Path) -> None:
    """Seed 004 §11.3 `global_requests_per_second`; 0k-sync's global limiter was never called."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        client = pool.client(RELAY)
        hello = HelloRequest((1,))
        refusal = await _first_refusal(client.call("hello", hello, HelloReply) for _ in range(500))
        assert refusal.code == "busy"
        assert refusal.retry_after_s > 0
        assert pool.servers[RELAY].running.desk.faults > 0

    with_pool(tmp_path, case, RelayPolicy(requests_per_s=40))


def test_the_number_of_sessions(tmp_path: Path) -> None:
    """Seed 004 §11.3 `max_concurrent_sessions`."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        opened = (pool.session(RELAY, pool.era().access, record.slot) for _ in range(30))
        assert (await _first_refusal(opened)).code == "busy"

    with_pool(tmp_path, case, RelayPolicy(sessions_max=20))


def test_too_many_of_anything(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        session = await pool.session(RELAY, era.access, record.slot)
        token, client = session.token, session.client
        ids = tuple(hash_bytes(b"%d" % n) for n in range(IDS_PER_REQUEST_MAX + 1))
        tiny = seal(era, 1, b"x", today())
        many = BLOBS_PER_PUSH_MAX + 1
        for verb, request, bodies in (
            ("have", HaveRequest(token, ids), []),
            ("get", GetRequest(token, ids), []),
            ("watch", WatchRequest((token,) * 257, (0,) * 257, 1.0), []),
            ("push", PushRequest(token, BlobClass.LOG, (len(tiny),) * many), [tiny] * many),
            ("push", PushRequest(token, BlobClass.LOG, ()), []),
        ):
            with pytest.raises(PeerFault) as refused:
                await client.call(verb, request, Empty, bodies)
            assert refused.value.code == "too-large", verb
        assert await session.have(ids[:-1]) == [False] * IDS_PER_REQUEST_MAX

    with_pool(tmp_path, case)


def _header(born: int, size: int, version: int = 1, suite: int = 1) -> bytes:
    return HEADER.pack(version, suite, born, bytes(32)).ljust(size, b"\x00")


@pytest.mark.parametrize(
    ("blob", "code"),
    [
        (_header(today(), 40), "size"),
        (_header(today(), BLOB_BYTES_MAX + 1), "size"),
        (_header(today(), 1_024, version=2), "version"),
        (_header(today(), 1_024, suite=9), "version"),
        (_header(today() + 3, 1_024), "born"),
        (_header(today() - 3, 1_024), "born"),
        (_header(0, 1_024), "born"),
        (_header(2**32 - 1, 1_024), "born"),
    ],
)
def test_a_blob_that_is_none(tmp_path: Path, blob: bytes, code: str) -> None:
    """D10, D11: relays refuse born more than two days off, replicas accept older."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        for name in (RELAY, REPLICA):
            session = await pool.session(name, pool.era().access, record.slot)
            request = PushRequest(session.token, BlobClass.LOG, (len(blob),))
            born = int.from_bytes(blob[2:6], "big")
            if name == REPLICA and code == "born" and born < today():
                await session.client.call("push", request, PushReply, [blob])
                continue
            with pytest.raises(PeerFault) as refused:
                await session.client.call("push", request, PushReply, [blob])
            assert refused.value.code == code

    with_pool(tmp_path, case)


def test_one_bad_blob_refuses_the_push_and_harms_nobody(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        session = await pool.session(RELAY, era.access, record.slot)
        good = seal(era, 1, b"x", today())
        request = PushRequest(session.token, BlobClass.LOG, (len(good), 200))
        with pytest.raises(PeerFault):
            await session.client.call("push", request, PushReply, [good, bytes(200)])
        assert await session.have([hash_bytes(good)]) == [False]
        await session.push(BlobClass.LOG, [good])

    with_pool(tmp_path, case)


@pytest.mark.parametrize("sizes", [(199,), (201,), (200, 1), (-200, 400), (100, 99), (2**62,)])
def test_sizes_that_do_not_add_up(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        session = await pool.session(RELAY, pool.era().access, record.slot)
        request = PushRequest(session.token, BlobClass.LOG, sizes)
        with pytest.raises(PeerFault) as refused:
            await session.client.call("push", request, PushReply, [_header(today(), 200)])
        assert refused.value.code == "malformed"

    with_pool(tmp_path, case)


def test_odd_ranges_and_counts(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        session = await pool.session(RELAY, era.access, record.slot)
        blob = seal(era, 1, b"x" * 500, today())
        await session.push(BlobClass.LOG, [blob])
        token, ids = session.token, (hash_bytes(blob),)
        bad: list[tuple[str, Any]] = [
            ("get", GetRequest(token, ids, offset=-1)),
            ("get", GetRequest(token, ids, length=-1)),
            ("get", GetRequest(token, ids * 2, offset=1)),
            ("get", GetRequest(token, (b"short",))),
            ("have", HaveRequest(token, (b"x" * 33,))),
            ("pull", PullRequest(token, session.incarnation, 0, 0)),
            ("pull", PullRequest(token, session.incarnation, 0, -5)),
            ("list", ListRequest(token, 0, -1)),
            ("list", ListRequest(token, 9, 1, (8, bytes(32)))),
            ("watch", WatchRequest((token,), (), 1.0)),
        ]
        for verb, request in bad:
            with pytest.raises(PeerFault) as refused:
                await session.client.call(verb, request, Empty)
            assert refused.value.code == "malformed", (verb, request)
        assert await session.get_range(ids[0], 10_000, 5) == b""
        assert await session.get_range(ids[0], 1_000, 999_999) == blob[1_000:]
        reply, _ = await session.client.call(
            "watch", WatchRequest((token,), (1,), -9.0), WatchReply
        )
        assert reply.heads == (1,)

    with_pool(tmp_path, case)


def test_attachments_where_none_belong(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        client = pool.client(RELAY)
        with pytest.raises(PeerFault):
            await client.call("hello", HelloRequest((1,)), HelloReply, [b"extra"])

    with_pool(tmp_path, case)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(verb=st.sampled_from([*VERBS, "nothing"]), body=st.binary(max_size=200))
def test_garbage_is_refused_and_nothing_else_happens(door: Door, verb: str, body: bytes) -> None:
    """h11's contract at our door: any bytes are carried out or refused, never anything else."""
    status, reply = asyncio.run(door.answer(verb, body))
    assert 400 <= status < 500
    error, _ = split(ErrorReply, reply)
    assert error.code in ("malformed", "too-large", "session", "verb", "version", "signature")


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    verb=st.sampled_from(sorted(VERBS)),
    header=st.dictionaries(
        st.sampled_from(["session", "sessions", "sizes", "after", "blobs", "tag", "born", "x"]),
        st.recursive(
            st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=40) | st.floats(),
            lambda inner: st.lists(inner, max_size=4),
            max_leaves=6,
        ),
    ),
)
def test_almost_messages_are_refused(door: Door, verb: str, header: dict[str, Any]) -> None:
    status, _ = asyncio.run(door.answer(verb, join(header)))
    assert status == 200 or 400 <= status < 500


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A door without a server in front of it."""
    home = tmp_path_factory.mktemp("door")
    built: list[Door] = []

    async def make() -> None:
        async with Pool(home) as pool:
            await pool.seat(1, 0)
            built.append(Door(pool.servers[RELAY].running.desk))

    asyncio.run(make())
    return built[0]


# --- Public pages --------------------------------------------------------------------------------
def test_health_names_nobody(tmp_path: Path) -> None:
    """The page is public: figures, and not a name (§9.1)."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        session = await pool.session(RELAY, era.access, record.slot)
        await session.push(BlobClass.LOG, [seal(era, 1, b"x", today())])
        context = tls_context(pool.roots)
        port = pool.servers[RELAY].port
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.1 200")
        page = json.loads(body)
        assert set(page) == {
            "status",
            "version",
            "sessions",
            "groups",
            "blobs",
            "stored_bytes",
            "uptime_s",
            "at",
        }
        assert (page["status"], page["blobs"], page["groups"]) == ("ok", 1, 1)

    with_pool(tmp_path, case)


def test_metrics_are_for_this_machine_only(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        path = pool.servers[RELAY].home / "state" / "metrics.sock"
        assert path.stat().st_mode & 0o077 == 0
        directory = os.open(path.parent, os.O_RDONLY)  # the path itself may be too long
        here = f"/proc/self/fd/{directory}/metrics.sock"
        reader, writer = await asyncio.open_unix_connection(here)
        os.close(directory)
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        page = (await reader.read()).decode()
        writer.close()
        families = list(text_string_to_metric_families(page.partition("\r\n\r\n")[2]))
        values = {sample.name: sample.value for family in families for sample in family.samples}
        assert values["holdfast_relay_blobs"] == 0
        assert values["holdfast_relay_writable"] == 1
        assert "holdfast_relay_commit_p99_seconds" in values
        assert {family.type for family in families} == {"gauge", "counter"}
        era = pool.era()
        for secret in (record.slot, era.tag, pool.network):
            assert secret.hex() not in page

    with_pool(tmp_path, case)
