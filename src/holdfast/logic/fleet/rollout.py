"""A release on its way through the fleet: one pure machine (ADR 0041).

The canary region goes first, then region by region. At most `at_once` servers change at once,
never two of one slot, nor one whose slot lacks another just now. Who cannot be ordered for
`doubt_s` is *passed over*: the others go on, and the rollout is not done before it has come round.
A server is *kept* when it runs the release, has been well for the whole soak, and its own node has
come to trust the release. *Well*: it talks to HQ, is filled and not gray, and no more of its
requests fail by its own fault than before. What its peers see counts as its tier, because one peer
may lie: a server that is not GREEN is kept no sooner than the tiers must have decided. A
*regression* halts the rollout and takes everything back, also what was kept:

    refused   its node tried the release and went back by itself
    down      its tier is ORANGE or worse
    doubted   something but `filled` has been wrong for `doubt_s` without a break
    overdue   it is not kept within `overdue_s` of the order

A server that fails meanwhile is held against the release until somebody says otherwise: a rollout
that stops for nothing costs a day, one that goes on may cost the fleet. Who defers is passed over,
and does not hold the others up, also when it was ordered and has not moved; the rollout takes it up
again when the deferral ends, or when the release is required. On the way back the ill go first, and
nobody waits for a soak.

`step` looks at everything each time, so it is right whatever was missed in between; it is told of
the words of operators by `order`. Both change rows, never anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Any, Final

import msgspec

from holdfast.errors import UsageError
from holdfast.limits.upgrade import FAULTS_SHARE_OVER
from holdfast.logic.effects import Audit, Effects
from holdfast.logic.fleet.model import SlotId, Tier
from holdfast.logic.fleet.rollout_rows import (
    ROLLOUT,
    Phase,
    PlaceRow,
    RolloutRow,
    RolloutState,
    default_release,
    place_key,
)

_DOWN: Final = frozenset({Tier.RED, Tier.BLACK})
"""ORANGE takes one witness, who may lie: such a server is watched until it is RED or is not."""


class Word(StrEnum):
    """What moves a rollout: what the fleet shows, and what operators say."""

    CANARY_KEPT = "canary-kept"
    ALL_KEPT = "all-kept"
    MORE = "more"
    REGRESSION = "regression"
    ALL_BACK = "all-back"
    HALT = "halt"
    RESUME = "resume"
    GO_BACK = "back"


S = RolloutState
TABLE: Final[dict[tuple[RolloutState, Word], RolloutState]] = {
    (S.CANARY, Word.CANARY_KEPT): S.ROLLING,
    (S.CANARY, Word.REGRESSION): S.BACK,
    (S.CANARY, Word.HALT): S.HALTED,
    (S.CANARY, Word.GO_BACK): S.BACK,
    (S.ROLLING, Word.ALL_KEPT): S.DONE,
    (S.ROLLING, Word.REGRESSION): S.BACK,
    (S.ROLLING, Word.HALT): S.HALTED,
    (S.ROLLING, Word.GO_BACK): S.BACK,
    (S.HALTED, Word.REGRESSION): S.BACK,
    (S.HALTED, Word.RESUME): S.CANARY,
    (S.HALTED, Word.GO_BACK): S.BACK,
    (S.DONE, Word.MORE): S.ROLLING,
    (S.DONE, Word.GO_BACK): S.BACK,
    (S.BACK, Word.ALL_BACK): S.BACKED,
}
"""What is not here cannot happen, and an operator is told so. After `resume` the canary is looked
at again, which takes no time when it is kept."""
UNDER_WAY: Final = frozenset({S.CANARY, S.ROLLING})
_TRIED: Final = frozenset({Phase.ORDERED, Phase.KEPT})
"""Phases of servers that were told to run the release."""


class Seen(msgspec.Struct, frozen=True):
    """A server as HQ sees it now. `release` and `refused` are what its node says of itself since it
    was last ordered anything; None: it has said nothing."""

    name: str
    region: str
    slots: frozenset[SlotId]
    tier: Tier
    silent: bool = False
    gray: bool = False
    """It answers and is no use (D28)."""
    filled: bool = True
    moving: bool = False
    """It leaves, or another machine is to take its name."""
    seated_at: float = 0.0
    faults_share: float = 0.0
    release: bytes | None = None
    proved: bool = True
    """Its node trusts that release."""
    refused: bytes = b""
    refused_why: str = ""
    deferred_until: float = 0.0


class Pace(msgspec.Struct, frozen=True):
    """Unix seconds; limits, scaled."""

    doubt_s: float
    overdue_s: float
    watch_s: float
    """Within this the tiers come to say whether a server that peers doubt is down or not."""


class Rollout:
    """The machine. Rows are what is durable; `well`, `doubt` and `unfit` are since when, in memory.

    `began` is when it began to listen: deadlines of older orders count from then.
    """

    def __init__(
        self,
        pace: Pace,
        row: RolloutRow | None,
        places: Mapping[str, PlaceRow] | None = None,
        began: float = 0.0,
    ) -> None:
        self.pace = pace
        self.row = row
        self.places = dict(places or {})
        self._began = began
        self._well: dict[str, float] = {}
        self._doubt: dict[str, float] = {}
        self._unfit: dict[str, float] = {}
        self.passed_over: frozenset[str] = frozenset()
        """Servers that wait and cannot be ordered, as of the last step."""
        self._changes: dict[str, RolloutRow | PlaceRow] = {}

    # --- Orders ----------------------------------------------------------------------------------
    def start(self, row: RolloutRow) -> Effects:
        """A new rollout. Raises UsageError while another is not over, or where it is over. One on
        its way back is cut short: it may wait for a server that never answers."""
        held = self.row
        if held is not None and held.state not in (S.DONE, S.BACKED, S.BACK):
            raise UsageError(f"a rollout is {held.state}; see: holdfast hq upgrade status")
        if row.release == row.back_to:
            raise UsageError("the fleet runs that release already; see: holdfast hq upgrade status")
        if held is not None and held.state is S.BACK:
            strays = {*held.strays, held.release} - {row.back_to}
            row = msgspec.structs.replace(row, strays=tuple(sorted(strays)))
        assert row.state is S.CANARY, "every rollout begins with the canary"
        self._put(row)
        self._well, self._doubt, self._unfit = {}, {}, {}
        detail = {"release": row.release.hex()[:12], "canary": row.canary, "author": row.author}
        return self._effects([Audit("rollout.started", row.id, detail)])

    def order(self, word: Word, author: str, reason: str = "") -> Effects:
        """An operator's halt, resume or back. Raises UsageError when the state has no such way."""
        if self.row is None or (self.row.state, word) not in TABLE:
            state = self.row.state if self.row is not None else "not under way"
            raise UsageError(f"the rollout is {state}; see: holdfast hq upgrade status")
        why = reason or f"by {author}"
        return self._effects([self._move(word, why, author=author)])

    def defer(self, name: str, until: float, author: str) -> Effects:
        """Pass a server over until then; 0 takes that back."""
        self._place(self.place(name), deferred_until=until)
        return self._effects([Audit("rollout.deferred", name, {"until": until, "author": author})])

    # --- Time ------------------------------------------------------------------------------------
    def listen_anew(self, now: float) -> None:
        """What was seen until now counts for nothing: HQ could not trust its own eyes."""
        self._began = now
        self._well, self._doubt, self._unfit = {}, {}, {}

    def ordered_at(self, place: PlaceRow, now: float) -> float:
        """When it was ordered, as far as this process may count: it has heard nothing that was
        said before it began, and another's clock may have been anywhere."""
        return place.ordered_at if self._began <= place.ordered_at <= now else self._began

    def step(self, servers: Sequence[Seen], now: float) -> Effects:
        """Look at the fleet and decide. `servers` are all that may run releases."""
        row = self.row
        if row is None or row.state is S.BACKED:
            return Effects()
        self.passed_over = frozenset()
        seen = {server.name: server for server in servers}
        if row.state is S.BACK:
            return self._effects(self._retreat(seen, now))
        audit: list[Audit] = []
        for name in sorted(seen):
            audit += self._judge(row, seen[name], now)
            if self.row is not row:
                return self._effects(audit)  # a regression: nothing else is ordered
        if row.state is S.DONE:
            for name in seen.keys() - self.places.keys():  # it joined later and was told at once
                self._place(self.place(name), phase=Phase.KEPT)
            if self._open(row, seen, now):
                audit.append(self._move(Word.MORE))
            return self._effects(audit)
        if row.state is S.HALTED:  # what is ordered goes on, nothing else is
            return self._effects(audit)
        return self._effects(audit + self._advance(row, seen, now))

    def _judge(self, row: RolloutRow, server: Seen, now: float) -> list[Audit]:
        """Whether a server that was told to run the release is kept, or is a regression."""
        place = self.place(server.name)
        if place.phase not in _TRIED or row.state is S.DONE:
            return []
        heard, refused = server.release is not None, server.refused == place.release
        stays = heard and server.release != place.release and not refused
        if place.phase is Phase.ORDERED and stays and self._defers(row, server, now):
            self._place(place, phase=Phase.WAITING, release=server.release)
            return [Audit("rollout.deferred", server.name, {"until": server.deferred_until})]
        doubt = self._doubted(place, server, now)
        if doubt and row.halting:
            return [
                Audit("rollout.regression", server.name, {"why": doubt}),
                self._move(Word.REGRESSION, f"{server.name} {doubt}"),
            ]
        if place.phase is Phase.KEPT:
            return []
        since = self._well.get(server.name)
        watch_s = 0.0 if server.tier is Tier.GREEN else self.pace.watch_s
        soaked = since is not None and now - since >= max(row.soak_s, watch_s) and server.proved
        if soaked or doubt:  # doubt counts for nothing without `halting`
            self._place(place, phase=Phase.KEPT)
            return [Audit("rollout.kept", server.name, {"release": row.release.hex()[:12]})]
        return []

    def _doubted(self, place: PlaceRow, server: Seen, now: float) -> str:
        """Why this is a regression; empty when it is none. Keeps count of how long all is well."""
        if server.refused and server.refused == place.release:
            return f"refused it: {server.refused_why or 'it did not say why'}"
        runs = server.release == place.release
        over = server.faults_share > place.share_before + FAULTS_SHARE_OVER
        ill = [
            word
            for word, holds in (
                ("is silent", server.silent),
                ("cannot write, or is very slow", server.gray),
                (f"fails {server.faults_share:.0%} of its requests", over),
            )
            if holds
        ]
        if runs and server.tier in _DOWN:
            return f"is {server.tier}"
        if ill and runs:
            since = self._doubt.setdefault(server.name, now)
            self._well.pop(server.name, None)
            if now - since >= self.pace.doubt_s:
                return ill[0]
        else:
            self._doubt.pop(server.name, None)
            if runs and server.filled:
                self._well.setdefault(server.name, now)
            else:
                self._well.pop(server.name, None)
        row = self.row
        assert row is not None
        since = max(self.ordered_at(place, now), server.seated_at)
        late = now - since >= self.pace.overdue_s + row.soak_s
        if place.phase is Phase.ORDERED and late:
            return "is not well on it in time" if runs else "does not run it in time"
        return ""

    def _advance(self, row: RolloutRow, seen: Mapping[str, Seen], now: float) -> list[Audit]:
        """Order the next servers, or come to the next state."""
        waiting = self._open(row, seen, now)
        busy = [n for n in seen if self.place(n).phase is Phase.ORDERED]
        lame = _lame({n: server for n, server in seen.items() if n not in busy})
        fit = {n for n in waiting if _fit(seen[n], lame)}
        self._unfit = {n: self._unfit.get(n, now) for n in waiting if n not in fit}
        self.passed_over = frozenset(
            name for name, since in self._unfit.items() if now - since >= self.pace.doubt_s
        )
        if row.state is S.ROLLING and not waiting and not busy:
            for name in seen:  # who defers is written down: it runs what it ran
                self._place(self.place(name))
            return [self._move(Word.ALL_KEPT)]
        waiting = [name for name in waiting if name not in self.passed_over]
        if row.state is S.CANARY:
            waiting = [name for name in waiting if seen[name].region == row.canary]
            canary_busy = [name for name in busy if seen[name].region == row.canary]
            if not waiting and not canary_busy:
                kept = any(
                    self.place(n).phase is Phase.KEPT and seen[n].region == row.canary for n in seen
                )
                return [self._move(Word.CANARY_KEPT)] if kept else []
        regions = {seen[name].region for name in waiting}
        first = row.canary if row.canary in regions else min(regions, default="")
        taken = {slot for name in busy for slot in seen[name].slots}
        audit: list[Audit] = []
        for name in sorted(waiting):
            server = seen[name]
            if len(busy) >= row.at_once or server.region != first:
                continue
            if name not in fit or server.slots & taken:
                continue
            self._order(name, row.release, Phase.ORDERED, server, now)
            busy.append(name)
            taken |= server.slots
            audit.append(Audit("rollout.ordered", name, {"release": row.release.hex()[:12]}))
        return audit

    def _open(self, row: RolloutRow, seen: Mapping[str, Seen], now: float) -> list[str]:
        """Servers that are to get the release and have not; those who defer are not among them."""
        return [
            name
            for name, server in seen.items()
            if self.place(name).phase is Phase.WAITING and not self._defers(row, server, now)
        ]

    def _defers(self, row: RolloutRow, server: Seen, now: float) -> bool:
        """Whether its owner puts it off, or an operator while the release is not required."""
        required = bool(row.required_at) and now >= row.required_at
        by_operator = 0.0 if required else self.place(server.name).deferred_until
        return now < max(server.deferred_until, by_operator)

    def _retreat(self, seen: Mapping[str, Seen], now: float) -> list[Audit]:
        """Take back whoever was told to run the release, the ill first."""
        row = self.row
        assert row is not None
        audit: list[Audit] = []
        for name, server in seen.items():
            place = self.place(name)
            if place.phase is Phase.BACK and server.release == row.back_to:
                self._place(place, phase=Phase.BACKED)
                audit.append(Audit("rollout.backed", name, {"release": row.back_to.hex()[:12]}))
        for name in self.places.keys() - seen.keys():  # nobody serves there: whoever comes is told
            if self._is_out(row, self.place(name)):
                self._place(self.place(name), release=row.back_to, phase=Phase.BACKED)
        back = [n for n in seen if self.place(n).phase is Phase.BACK]
        busy = [n for n in back if now - self.ordered_at(self.place(n), now) < self.pace.overdue_s]
        todo = [name for name in seen if self._is_out(row, self.place(name))]
        lame = _lame(seen)
        if not todo and not back:
            return [*audit, self._move(Word.ALL_BACK, row.reason)]
        taken = {slot for name in busy for slot in seen[name].slots}
        for name in sorted(todo, key=lambda n: (_serves(seen[n]), n)):
            if len(busy) >= row.at_once or seen[name].slots & taken:
                continue
            stops = seen[name].release != row.back_to  # who went back by itself only hears of it
            if stops and _serves(seen[name]) and seen[name].slots & lame:
                continue  # a second server of a slot that lacks one: first the ill one
            self._order(name, row.back_to, Phase.BACK, seen[name], now)
            busy.append(name)
            taken |= seen[name].slots
        return audit

    @staticmethod
    def _is_out(row: RolloutRow, place: PlaceRow) -> bool:
        """Whether it was told to run what must be taken back."""
        stray = place.phase is Phase.WAITING and place.release in row.strays
        return place.phase in _TRIED or stray

    # --- Rows ------------------------------------------------------------------------------------
    def _order(self, name: str, release: bytes, phase: Phase, server: Seen, now: float) -> None:
        self._well.pop(name, None)
        self._doubt.pop(name, None)
        share = server.faults_share
        self._place(
            self.place(name), release=release, phase=phase, ordered_at=now, share_before=share
        )

    def _move(self, word: Word, reason: str = "", **detail: Any) -> Audit:
        row = self.row
        assert row is not None
        after = TABLE[row.state, word]
        self._put(msgspec.structs.replace(row, state=after, reason=reason))
        told = {"before": row.state.value, "because": word.value, "reason": reason}
        return Audit(f"rollout.{after.value}", row.id, told | detail)

    def place(self, name: str) -> PlaceRow:
        """A server's place in this rollout; one that had none runs what all run."""
        place = self.places.get(name) or PlaceRow(name, default_release(self.row))
        if self.row is not None and place.rollout != self.row.id:
            return msgspec.structs.replace(place, phase=Phase.WAITING, rollout=self.row.id)
        return place

    def _place(self, place: PlaceRow, **changes: Any) -> None:
        row = msgspec.structs.replace(place, **changes)
        if self.places.get(row.name) != row:
            self.places[row.name] = self._changes[place_key(row.name)] = row

    def _put(self, row: RolloutRow) -> None:
        self.row = self._changes[ROLLOUT] = row

    def _effects(self, audit: list[Audit]) -> Effects:
        changes, self._changes = self._changes, {}
        return Effects(persist=tuple(changes.items()), audit=tuple(audit))


def _serves(server: Seen) -> bool:
    """Whether its slots can do without another server for a while."""
    sick = server.tier in _DOWN or server.silent or server.gray
    return server.filled and not sick


def _lame(seen: Mapping[str, Seen]) -> set[SlotId]:
    """Slots that lack a server just now."""
    return {slot for server in seen.values() if not _serves(server) for slot in server.slots}


def _fit(server: Seen, lame: AbstractSet[SlotId]) -> bool:
    """Whether it can be ordered now: who was not heard of yet may defer for all we know."""
    heard = server.release is not None
    return heard and _serves(server) and not server.moving and not server.slots & lame
