"""The operator's verbs about releases and upgrades, mounted on the admin port (ADR 0041).

| method and path                       | shape                     |
|---------------------------------------|---------------------------|
| GET  /admin/v1/releases               | -> ReleaseItems           |
| POST /admin/v1/releases               | ReleaseOrder -> Done      |
| GET  /admin/v1/upgrade                | -> UpgradeView            |
| POST /admin/v1/upgrade                | UpgradeOrder -> Done      |
| POST /admin/v1/upgrade/halt, /resume, /back | Why -> Done         |
| POST /admin/v1/servers/{name}/defer   | Defer -> Done             |

An upgrade reaches every machine, so it needs a second operator. To halt one, or to take one back,
needs nobody else: whoever sees that it goes wrong must not have to wait.
"""

from __future__ import annotations

from typing import Any

from holdfast.errors import UsageError
from holdfast.hq.parts import Parts
from holdfast.hq.releases import statement
from holdfast.hq.verbs import EVERYBODY, READERS, RUNNERS, Asked, Done, Verb
from holdfast.limits.upgrade import DEFER_DAYS_MAX
from holdfast.logic.fleet.rollout import Word
from holdfast.logic.fleet.rollout_rows import PlaceRow, RolloutRow, default_release
from holdfast.wire.codec import Message
from holdfast.wire.records import Staple
from holdfast.wire.release import Knobs

_DAY_S = 86_400.0
OWN_NAME = "installed"
"""How people call what is no release: each machine's own installation."""


class ReleaseOrder(Message):
    """A statement whose archive lies in headquarters' directory."""

    staple: Staple


class ReleaseItem(Message):
    """`id` in hex."""

    id: str
    name: str
    version: str
    wire_min: int
    wire: int
    schema: int
    size: int
    knobs: Knobs
    created_at: int
    added_at: float
    added_by: str


class ReleaseItems(Message):
    items: tuple[ReleaseItem, ...]


class UpgradeOrder(Message):
    """`release` by name, or the beginning of its id; `installed` is what is installed. `soak_s` is
    the network's seconds, null the usual."""

    release: str
    canary: str = ""
    at_once: int = 1
    soak_s: float | None = None
    halting: bool = True
    required_in_days: float = 0.0
    """Days from now until the release is required; 0: it is not."""


class Why(Message):
    reason: str = ""


class Defer(Message):
    """How many days from now; 0 takes it back."""

    days: float


class PlaceView(Message):
    """A server: what it is to run, what it says that it runs, and until when it is put off."""

    name: str
    region: str
    phase: str
    wanted: str
    runs: str
    version: str
    refused: str
    deferred_until: float


class UpgradeView(Message):
    """The rollout under way, or the last; empty names where there was none."""

    id: str
    release: str
    back_to: str
    state: str
    canary: str
    reason: str
    author: str
    started_at: float
    required_at: float
    passed_over: int
    """Servers that wait and cannot be ordered: ill, leaving, or beside one that is."""
    places: tuple[PlaceView, ...]


class UpgradeVerbs:
    """The handlers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def verbs(self) -> tuple[Verb, ...]:
        """The rows of these verbs."""
        return (
            Verb("GET", "/releases", READERS, self.releases),
            Verb("POST", "/releases", RUNNERS, self.add, ReleaseOrder),
            Verb("GET", "/upgrade", EVERYBODY, self.status),
            Verb("POST", "/upgrade", RUNNERS, self.upgrade, UpgradeOrder, second=True),
            Verb("POST", "/upgrade/halt", RUNNERS, self.halt, Why),
            Verb("POST", "/upgrade/resume", RUNNERS, self.resume, Why),
            Verb("POST", "/upgrade/back", RUNNERS, self.back, Why),
            Verb("POST", "/servers/{name}/defer", RUNNERS, self.defer, Defer),
        )

    async def releases(self, _asked: Asked, _body: Any) -> ReleaseItems:
        items = []
        for row in await self._parts.releases.rows():
            told = statement(row)
            items.append(
                ReleaseItem(
                    id=row.id.hex(),
                    name=row.name,
                    version=row.version,
                    wire_min=told.wire_min,
                    wire=told.wire,
                    schema=told.schema,
                    size=told.size,
                    knobs=told.knobs,
                    created_at=told.created_at,
                    added_at=row.added_at,
                    added_by=row.added_by,
                )
            )
        return ReleaseItems(tuple(items))

    async def add(self, asked: Asked, body: ReleaseOrder) -> Done:
        row = await self._parts.releases.add(body.staple, asked.author)
        detail = {"release": row.id.hex(), "version": row.version, "author": asked.author}
        await self._parts.audit.line("release.added", row.name, **detail)
        return Done(row.name)

    async def upgrade(self, asked: Asked, body: UpgradeOrder) -> Done:
        rollouts, release = self._parts.rolling(), b""
        if body.release != OWN_NAME:
            release = (await self._parts.releases.find(body.release)).id
        now = self._parts.clock.wall()
        days = body.required_in_days
        await rollouts.start(
            release,
            body.canary,
            asked.author,
            at_once=body.at_once,
            soak_s=body.soak_s,
            halting=body.halting,
            required_at=now + days * _DAY_S if days > 0 else 0.0,
        )
        return Done(body.release)

    async def halt(self, asked: Asked, body: Why) -> Done:
        return await self._order(Word.HALT, asked, body)

    async def resume(self, asked: Asked, body: Why) -> Done:
        return await self._order(Word.RESUME, asked, body)

    async def back(self, asked: Asked, body: Why) -> Done:
        return await self._order(Word.GO_BACK, asked, body)

    async def _order(self, word: Word, asked: Asked, body: Why) -> Done:
        await self._parts.rolling().order(word, asked.author, body.reason)
        return Done(word.value)

    async def defer(self, asked: Asked, body: Defer) -> Done:
        if not 0 <= body.days <= DEFER_DAYS_MAX:
            raise UsageError(f"an upgrade is put off by 0 to {DEFER_DAYS_MAX} days")
        name, now = asked.path_params["name"], self._parts.clock.wall()
        until = now + body.days * _DAY_S if body.days else 0.0
        await self._parts.rolling().defer(name, until, asked.author)
        return Done(name)

    # --- Looking ---------------------------------------------------------------------------------
    async def status(self, _asked: Asked, _body: Any) -> UpgradeView:
        rollouts = self._parts.rolling()
        row, places = await rollouts.current()
        names = {b"": OWN_NAME} | {r.id: r.name for r in await self._parts.releases.rows()}
        return UpgradeView(
            id=row.id if row else "",
            release=_named(names, row.release) if row else "",
            back_to=_named(names, row.back_to) if row else "",
            state=row.state.value if row else "none",
            canary=row.canary if row else "",
            reason=row.reason if row else "",
            author=row.author if row else "",
            started_at=row.started_at if row else 0.0,
            required_at=row.required_at if row else 0.0,
            passed_over=rollouts.passed_over,
            places=self._places(row, places, names),
        )

    def _places(
        self, row: RolloutRow | None, places: dict[str, PlaceRow], names: dict[bytes, str]
    ) -> tuple[PlaceView, ...]:
        rollouts, found = self._parts.rolling(), []
        for server in rollouts.servers():
            place = places.get(server.name) or PlaceRow(server.name, default_release(row))
            told = rollouts.told(server.node)
            by_owner = told.deferred_until if told else 0.0
            found.append(
                PlaceView(
                    name=server.name,
                    region=server.region,
                    phase=place.phase.value,
                    wanted=_named(names, place.release),
                    runs=_named(names, told.release) if told else "",
                    version=told.version if told else "",
                    refused=told.refused_why if told else "",
                    deferred_until=max(place.deferred_until, by_owner),
                )
            )
        return tuple(found)


def _named(names: dict[bytes, str], release: bytes) -> str:
    return names.get(release) or release.hex()[:12]
