"""`holdfast drill any-core`: any request is handled from any core, and losses go unnoticed.

Seed 000: "any request is handled from any core node, and the network survives the loss of some of
them without pain". Headquarters are two processes over an etcd of three members; five cores and an
entry with real agents and proxies carry sealed calls to them.

1. Every verb of the operator's table. What is looked at is asked directly and through each core and
   compared leaf by leaf; every change is made once, through one core, and must stand in the audit
   log exactly once as each of the other cores shows it.
2. Callers work on while two cores, one member of etcd and the headquarters that leads are killed.
   A call that gets no answer counts as failed; a change that was answered must be there once.
3. All headquarters and all of etcd are killed. `holdfast hq` answers from the nodes' sealed copy.
4. `holdfast hq phoenix` with the words and the addresses of cores that live; the cores carry calls
   to the new headquarters, and nothing that had been answered is missing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.crypto.phrase import Phrase
from holdfast.crypto.sealedfile import recipient_of
from holdfast.errors import HoldfastError, OperationFault
from holdfast.hq.access_admin import AccessState
from holdfast.hq.admin import AuditPage, TokenItems, TokenMade
from holdfast.hq.operators import OperatorMade, OperatorOrder, Waiting
from holdfast.hq.verbs import BASE, OperatorRole
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.front_client import FrontClient, Where, bearer
from holdfast.rim.https import JsonClient
from holdfast.rim.loopback import LoopbackClient
from holdfast.sim.access.ground import GroundNode
from holdfast.sim.access.shared import SharedGround
from holdfast.sim.drills import every_verb
from holdfast.sim.drills.answers import different, leaves, moving, plain
from holdfast.sim.drills.ashes import Ashes
from holdfast.sim.drills.every_verb import Step
from holdfast.wire.codec import pack_json
from holdfast.wire.hq import ApplicationList, ApplicationReply
from holdfast.wire.snapshot import identity_of

SCALE: Final = 30.0
CELL: Final = "c1"
ACCEPTED: Final = 202
REFUSED: Final = frozenset({403, 404, 422})
"""What nobody signed, what is not there, and what cannot be done here."""
TRIES: Final = 4
"""Of one comparison: something may have changed between a direct answer and the others."""
CALLERS: Final = 3
CALM_S: Final = 3.0
COPY_S: Final = 90.0
NO_SECOND: Final = frozenset({"POST /pending/{id}/agree", "POST /pending/{id}/drop"})


class AnyCoreReport(msgspec.Struct):
    """What was found. Times are real seconds."""

    cores: int = 0
    verbs: int = 0
    """In the table that headquarters shows as its OpenAPI document."""
    verbs_read: int = 0
    verbs_changed: int = 0
    verbs_refused_alike: int = 0
    verbs_missing: tuple[str, ...] = ()
    answers: int = 0
    answers_differing: tuple[str, ...] = ()
    answers_equal: bool = False
    moving: tuple[str, ...] = ()
    """Fields that move by themselves, and were not compared while they did."""
    changes_unseen: int = 0
    """Changes that some core did not show exactly once."""
    strangers_refused: bool = False
    cores_killed: int = 0
    members_killed: int = 0
    headquarters_killed: int = 0
    requests: int = 0
    failed_requests: int = 0
    failures: tuple[str, ...] = ()
    looked_again: int = 0
    """Changes under way in a headquarters that was killed: callers are told that nobody knows,
    look, and make them only if they are not there."""
    done_twice: int = 0
    lost: int = 0
    slowest_s: float = 0.0
    reads_from_copy: bool = False
    copy_age_s: int = 0
    phoenix: bool = False
    phoenix_s: float = 0.0
    seconds: float = 0.0
    held: bool = False


class AnyCore:
    """One run, in a namespace of its own."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy
        self._phrase = Phrase.from_entropy(entropy.bytes(32))
        self._ground = SharedGround(
            home,
            clock=clock,
            entropy=entropy,
            recipient=recipient_of(identity_of(self._phrase)),
            scale=SCALE,
        )
        self._keys: dict[str, str] = {}
        self._cores: list[GroundNode] = []
        self._ways: dict[str, FrontClient] = {}
        self._turn = 0
        self._done: Counter[str] = Counter()
        self._applicants = 0
        self._tokens: set[str] = set()
        self.report = AnyCoreReport()

    async def run(self, cores: int, calls: int) -> AnyCoreReport:
        """`cores` of them, and at least `calls` of each caller while things die."""
        report, began = self.report, self._clock.elapsed()
        report.cores = cores
        try:
            await self._ground.start()
            await self._populate(cores)
            await self._every_verb()
            await self._losses(calls)
            await self._ashes()
        finally:
            for way in self._ways.values():
                await way.close()
            await self._ground.stop()
        report.seconds = self._since(began)
        report.held = (
            report.answers_equal
            and not report.verbs_missing
            and report.strangers_refused
            and report.failed_requests == report.done_twice == report.lost == 0
            and report.reads_from_copy
            and report.phoenix
        )
        return report

    def _since(self, began: float) -> float:
        return round((self._clock.elapsed() - began) / self._clock.scale, 1)

    async def _populate(self, cores: int) -> None:
        ground = self._ground
        await ground.cell(CELL)
        for name in ("olga", "oscar"):
            order = OperatorOrder(name, OperatorRole.OWNER)
            made: OperatorMade = await ground.call("POST", "/operators", order, OperatorMade)
            self._keys[name] = made.key
        for number in range(cores):
            self._cores.append(await ground.node(Role.CORE, CELL, f"owner-{number}"))
        await ground.node(Role.ENTRY, CELL, "owner-0")
        for node in ground.nodes.values():
            where = Where((node.address,), ground.where.fingerprint)
            self._ways[node.name] = FrontClient(where, self._clock, self._entropy)

    # --- Asking ----------------------------------------------------------------------------------
    async def _through(
        self, core: str, method: str, path: str, body: object = None, who: str = "olga"
    ) -> tuple[int, bytes]:
        data = b"" if body is None else pack_json(body)
        key = bearer(self._keys.get(who, ""))
        return await self._ways[core].exchange(method, BASE + path, data, key)

    async def _directly(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """At the admin port of whoever leads, with olga's key."""
        home = self._ground.homes[await self._ground.leader()]
        client = LoopbackClient(home.admin().address, self._keys["olga"], self._clock)
        return await client.exchange(method, BASE + path, body)

    def _next_core(self) -> str:
        self._turn += 1
        return self._cores[self._turn % len(self._cores)].name

    # --- Every verb ------------------------------------------------------------------------------
    async def _every_verb(self) -> None:
        report = self.report
        table = await self._table()
        report.verbs = len(table)
        applications = self._applications()
        entry = next(n.name for n in self._ground.nodes.values() if n.role is Role.ENTRY)
        await every_verb.members(self._change)
        await every_verb.trust(self._change, applications)
        await every_verb.persons(self._change)
        await every_verb.pool(self._change)
        await every_verb.fleet(self._change)
        await self._drop_one()
        looked = [verb.partition(" ")[2] for verb in sorted(table) if verb.startswith("GET ")]
        for path in looked:
            await self._compare(path)
        report.verbs_read = len(looked)
        await self._compare_member_path()
        await self._strangers()
        await every_verb.cells(self._change, self._cores[0].name, entry)
        await self._compare("/access")
        report.verbs_missing = tuple(
            sorted(table - self._done.keys() - {f"GET {p}" for p in looked})
        )
        report.verbs_changed = len(self._done) - report.verbs_refused_alike
        report.answers_equal = not report.answers_differing and not report.changes_unseen

    async def _table(self) -> set[str]:
        _, data = await self._directly("GET", "/openapi.json")
        paths = msgspec.json.decode(data)["paths"]
        return {
            f"{method.upper()} {path.removeprefix(BASE)}"
            for path, methods in paths.items()
            for method in methods
        }

    async def _compare(self, path: str) -> None:
        """One look, directly and through each core."""
        report = self.report
        found: tuple[str, ...] = ()
        for _ in range(TRIES):
            _, before = await self._directly("GET", path)
            through = [await self._through(core.name, "GET", path) for core in self._cores]
            _, after = await self._directly("GET", path)
            apart = moving(before, after)
            found = tuple(
                f"{core.name} {path} {where}"
                for core, (status, data) in zip(self._cores, through, strict=True)
                for where in (
                    (f"status {status}",) if status != 200 else different(before, data, apart)
                )
            )
            report.moving = tuple(sorted({*report.moving, *(f"{path}: {plain(p)}" for p in apart)}))
            if not found:
                break
        report.answers += len(self._cores)
        report.answers_differing += found

    async def _change(self, step: Step) -> dict[str, Any]:
        """Make a change through one core; every core must show it done, once."""
        core = self._next_core()
        after = await self._audit_end()
        method = step.verb.partition(" ")[0]
        status, data = await self._through(core, method, step.path, step.body)
        if status == ACCEPTED:
            waiting = msgspec.json.decode(data, type=Waiting)
            path = f"/pending/{waiting.pending}/agree"
            status, data = await self._through(self._next_core(), "POST", path, who="oscar")
            self._done["POST /pending/{id}/agree"] += 1
        if step.refused:
            return await self._refused(step, status, data)
        if status != 200:
            text = data.decode(errors="replace")[:200]
            raise OperationFault(f"{step.verb} through {core}: {status} {text}", retryable=False)
        self._done[step.verb] += 1
        await self._seen(step.verb, after)
        answer: dict[str, Any] = msgspec.json.decode(data)
        return answer

    async def _refused(self, step: Step, status: int, data: bytes) -> dict[str, Any]:
        """What cannot be done here is refused as it is directly, where that is possible at once."""
        direct, why = await self._directly(step.verb.partition(" ")[0], step.path, step.body)
        if direct == ACCEPTED:  # it waits for a second person there as well
            pending = msgspec.json.decode(why, type=Waiting).pending
            direct, why = await self._agree_directly(pending)
        alike = (direct, leaves(why)) == (status, leaves(data)) and status in REFUSED
        self.report.answers += 1
        if not alike:
            self.report.answers_differing += (f"{step.verb}: {status}, directly {direct}",)
        self._done[step.verb] += 1
        self.report.verbs_refused_alike += 1
        return {}

    async def _agree_directly(self, pending: str) -> tuple[int, bytes]:
        home = self._ground.homes[await self._ground.leader()]
        client = LoopbackClient(home.admin().address, self._keys["oscar"], self._clock)
        return await client.exchange("POST", f"{BASE}/pending/{pending}/agree", None)

    async def _audit_end(self) -> int:
        _, data = await self._directly("GET", "/audit?after=0")
        return msgspec.json.decode(data, type=AuditPage).sequence

    async def _seen(self, verb: str, after: int) -> None:
        """Each core shows one line of this change, by whoever asked first."""
        for core in self._cores:
            _, data = await self._through(core.name, "GET", f"/audit?after={after}")
            lines = msgspec.json.decode(data, type=AuditPage).lines
            calls = [line.detail.get("call") for line in lines if line.verb == "operator.did"]
            self.report.changes_unseen += calls.count(verb) != 1

    async def _drop_one(self) -> None:
        """An action that waits and is dropped by a second person."""
        after = await self._audit_end()
        order = {"reason": "never", "key": "cd" * 32}
        _, data = await self._through(self._next_core(), "POST", "/revoke", order)
        pending = msgspec.json.decode(data, type=Waiting).pending
        path = f"/pending/{pending}/drop"
        status, _ = await self._through(self._next_core(), "POST", path, who="oscar")
        self.report.changes_unseen += status != 200
        self._done["POST /pending/{id}/drop"] += 1
        await self._seen("POST /pending/{id}/drop", after)

    async def _applications(self) -> AsyncIterator[str]:
        """Public ids of applications that strangers make through cores."""
        while True:
            self._applicants += 1
            order = {"role": "relay", "owner": f"new-{self._applicants}", "reason": "drill"}
            core = self._ways[self._next_core()]
            status, data = await core.exchange("POST", "/v1/join-requests", pack_json(order), "")
            msgspec.json.decode(data, type=ApplicationReply)
            assert status == 200, "checked by its shape"
            _, data = await self._through(self._next_core(), "GET", "/applications")
            items = msgspec.json.decode(data, type=ApplicationList).items
            yield next(item.id for item in items if item.owner == order["owner"])

    async def _compare_member_path(self) -> None:
        """A member's subscription: directly from headquarters' API, and through each core."""
        token = (await self._ground.device(await self._ground.member("ada"), CELL)).token
        path = f"/v1/access/subscriptions/{token}"
        hq = JsonClient(
            self._ground.home.config().addresses, self._ground.home.roots(), None, self._clock
        )
        try:
            before = await hq.fetch(path)
            for core in self._cores:
                status, data = await self._ways[core.name].exchange("GET", path, b"", "")
                self.report.answers += 1
                apart = moving(before, await hq.fetch(path))
                if status != 200 or different(before, data, apart):
                    self.report.answers_differing += (f"{core.name} subscription",)
        finally:
            await hq.close()

    async def _strangers(self) -> None:
        """Control: who has no key gets nothing, through any core."""
        statuses = {(await self._through(c.name, "GET", "/fleet", who=""))[0] for c in self._cores}
        self.report.strangers_refused = statuses == {401}

    # --- Losses ----------------------------------------------------------------------------------
    async def _losses(self, calls: int) -> None:
        """Callers go on while two cores, a member of etcd and the acting headquarters die."""
        report, going = self.report, asyncio.Event()
        callers = [asyncio.create_task(self._caller(n, calls, going)) for n in range(CALLERS)]
        try:
            await self._clock.sleep_real(CALM_S)
            for core in self._cores[:2]:
                core.kill()
                report.cores_killed += 1
                await self._clock.sleep_real(CALM_S / 2)
            self._ground.kill(self._ground.members[0])
            report.members_killed += 1
            await self._clock.sleep_real(CALM_S)
            self._ground.kill(await self._ground.leader())
            report.headquarters_killed += 1
            await self._ground.until("another leading headquarters", self._ground.leader)
            await self._clock.sleep_real(CALM_S)
        finally:
            going.set()
            await asyncio.gather(*callers)
        items: TokenItems = await self._ground.call("GET", "/tokens", None, TokenItems)
        owners = Counter(item.owner for item in items.items if item.owner.startswith("load-"))
        report.done_twice = sum(count - 1 for count in owners.values())
        stored = {item.hash for item in items.items}
        report.lost = len(self._tokens - stored)
        self._tokens = stored

    async def _caller(self, number: int, calls: int, going: asyncio.Event) -> None:
        """Looks and changes by turns, with the addresses of all cores."""
        addresses = [core.address for core in self._cores]
        turned = (*addresses[number:], *addresses[:number])
        where = Where(turned, self._ground.where.fingerprint)
        way = FrontClient(where, self._clock, self._entropy)
        made = 0
        try:
            while made < calls or not going.is_set():
                made += 1
                began = self._clock.elapsed()
                self.report.requests += 1
                try:
                    await self._work(way, f"load-{number}-{made}")
                except HoldfastError as error:
                    self.report.failed_requests += 1
                    self.report.failures += (str(error),)
                self.report.slowest_s = max(self.report.slowest_s, self._since(began))
                await self._clock.sleep_real(0.05)
        finally:
            await way.close()

    async def _work(self, way: FrontClient, owner: str) -> None:
        """One look or one change. Raises HoldfastError."""
        key = bearer(self._keys["olga"])
        if int(owner.rpartition("-")[2]) % 2:
            status, data = await way.exchange("GET", f"{BASE}/access", b"", key)
            if status == 200:
                msgspec.json.decode(data, type=AccessState)
                return
        else:
            order = pack_json({"role": Role.RELAY, "region": "eu", "owner": owner})
            status, data = await way.exchange("POST", f"{BASE}/tokens", order, key)
            if status == 409:
                self.report.looked_again += 1
                _, data = await way.exchange("GET", f"{BASE}/tokens", b"", key)
                items = msgspec.json.decode(data, type=TokenItems).items
                if any(item.owner == owner for item in items):
                    return
                status, data = await way.exchange("POST", f"{BASE}/tokens", order, key)
            if status == 200:
                self._tokens.add(msgspec.json.decode(data, type=TokenMade).hash)
                return
        raise OperationFault(f"status {status}: {data[:200].decode(errors='replace')}")

    # --- No headquarters -------------------------------------------------------------------------
    async def _ashes(self) -> None:
        """Everything of headquarters dies; what nodes keep is enough."""
        report, ground = self.report, self._ground
        living = tuple(core.address for core in self._cores[2:])
        where = Where(living, ground.where.fingerprint)
        ashes = Ashes(ground.directory, where, self._phrase, self._keys["olga"], self._clock)
        way = FrontClient(where, self._clock, self._entropy)
        try:
            revision = (await ground.status()).revision
            await ground.member("last")  # a change that a copy follows at once

            async def copied() -> bool:
                return (await way.newest_copy())[0].revision >= revision

            await ground.until("a copy of all this", copied, COPY_S)
            ground.kill_all()
            known = await ashes.look(TokenItems, "hq", "token", "list")
            report.reads_from_copy = {item.hash for item in known.items} == self._tokens
            report.copy_age_s = int(self._clock.wall()) - (await way.newest_copy())[0].made_at
            began = self._clock.elapsed()
            await ashes.rise()
            ground.adopt(ashes.home, await ashes.serve())
            await ground.until("the new headquarters", ground.leader)
            report.phoenix = await self._still_there()
            report.phoenix_s = self._since(began)
        finally:
            await way.close()
            await ashes.stop()

    async def _still_there(self) -> bool:
        """What was answered is known and a change goes through, by way of each core left."""
        whole = True
        for core in self._cores[2:]:
            status, data = await self._through(core.name, "GET", "/tokens")
            items = msgspec.json.decode(data, type=TokenItems).items if status == 200 else ()
            whole &= self._tokens <= {item.hash for item in items}
            order = {"role": Role.RELAY, "region": "eu", "owner": "after"}
            status, _ = await self._through(core.name, "POST", "/tokens", order)
            whole &= status == 200
        return whole
