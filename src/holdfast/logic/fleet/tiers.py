"""How sure HQ is that a server is gone: the tier machine over all servers (seed 004 §4).

Input is testimony. A *witness* is a seated server that shares a slot with the accused; it says
what its own probes saw and what clients told it. Its word replaces its last word and ages out
after three probe periods, so a witness that stops talking stops counting. A witness tells how long
a failure has lasted by its own clock (`failed_s`), so a skewed clock lies only about itself.

What HQ makes of it, strongest first:

    GONE       an operator revoked the node, or it left: no doubt to resolve
    CONFIRMED  two independent witnesses, each with three failures in a row and five minutes of
               failure (§4.3). Independent: of different failure domains, and not the accused;
               where only one domain is left alive, two servers of it must do. While the accused
               talks to HQ, or did within those five minutes, a majority of its slot peers must say
               so, the silent counted as long as they are not known to be down, and with them all
               that are independent of it, or the clients, as two independent ones have heard
               them: a path cut between servers costs nobody anything.
    FAILING    a witness has three failures in a row (§4.2), and the evidence is not
               region-specific: where living peers or reporting clients are of several regions,
               it comes from two at least. A failure seen from one region alone stays YELLOW for
               five minutes; if by then two witnesses confirm and nobody contradicts, it is RED.
    RELAPSED   the same of a server that is RED, when every failure began after it became so: it
               has answered since, and HQ was down or cut off and did not hear of it
    GRAY       the server itself says it cannot write, or is very slow (D28)
    WATCHED    somebody doubts it (§4.1)
    CLEAR      nobody doubts it, and it talks to HQ or a witness reached it
    UNKNOWN    nobody says anything: the tier stays as it was

Witnesses who reached the accused contradict: as many independent ones as those who did not, and
there is neither FAILING nor CONFIRMED. Reports of clients never make more than WATCHED (§9.1).

Nobody probes an entry or a core, so of these silence alone tells: CONFIRMED while it is silent. It
costs them no seat: an entry is left out of subscriptions, and its provider is not lost for it.

Transitions are the table below; what is not in it changes nothing. BLACK is a provider's fate, so
`Tiers.lost_provider` decides it over all its servers (§4.4).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from math import ceil
from typing import Final

import msgspec

from holdfast.limits import (
    BLACK_FRACTION_MIN,
    BLACK_SERVERS_MIN,
    GRAY_COMMIT_P99_MS,
    ORANGE_FAILURES,
    ORANGE_REGIONS_MIN,
    RED_WITNESSES_MIN,
    YELLOW_ACTIVE_FRACTION,
    YELLOW_CLIENTS_MIN,
    YELLOW_CLIENTS_OVER,
)
from holdfast.logic.fleet.liveness import Liveness
from holdfast.logic.fleet.model import ACCESS, OPERATOR, STORES, Load, NodeId, Tier
from holdfast.logic.fleet.rows import ServerRow, ServerState
from holdfast.logic.fleet.state import DOWN, FleetState


class Signal(StrEnum):
    """What the evidence amounts to."""

    GONE = "gone"
    CONFIRMED = "confirmed"
    FAILING = "failing"
    RELAPSED = "relapsed"
    GRAY = "gray"
    WATCHED = "watched"
    CLEAR = "clear"
    UNKNOWN = "unknown"


G, Y, O, R, B = Tier.GREEN, Tier.YELLOW, Tier.ORANGE, Tier.RED, Tier.BLACK  # noqa: E741
TRANSITIONS: Final[dict[Tier, dict[Signal, Tier]]] = {
    G: {
        Signal.WATCHED: Y,
        Signal.GRAY: O,
        Signal.FAILING: O,
        Signal.CONFIRMED: R,
        Signal.GONE: R,
    },
    Y: {
        Signal.CLEAR: G,
        Signal.GRAY: O,
        Signal.FAILING: O,
        Signal.CONFIRMED: R,
        Signal.GONE: R,
    },
    O: {Signal.CLEAR: G, Signal.WATCHED: Y, Signal.CONFIRMED: R, Signal.GONE: R},
    R: {Signal.CLEAR: G, Signal.GRAY: O, Signal.RELAPSED: O},
    B: {Signal.CLEAR: G, Signal.GRAY: O},
}
"""RED and BLACK end only when the server answers again, or when another node takes the seat. A seat
that was RED and fails anew is five minutes away from RED once more."""


class Witnessed(msgspec.Struct, frozen=True):
    """An alert, as HQ received it from the verified node `witness`. Durations are Unix seconds."""

    witness: NodeId
    name: str
    node: NodeId
    tier: Tier
    clients: int = 0
    clients_active: int = 0
    regions: tuple[str, ...] = ()
    probe_ok: bool | None = None
    failures: int = 0
    failed_s: float = 0.0


class Evidence(msgspec.Struct, frozen=True):
    """One witness's latest word on one server. `since` is when its failures began, on our clock."""

    witness: str
    received_at: float
    since: float
    said: Witnessed


class Change(msgspec.Struct, frozen=True):
    """A server's tier changed: the row after it, the tier before, and what moved it."""

    server: ServerRow
    before: Tier
    signal: Signal
    evidence: tuple[Evidence, ...]


class _Case:
    """Everything open about one seated node."""

    __slots__ = ("evidence", "gray_since", "node")

    def __init__(self, node: NodeId) -> None:
        self.node = node
        self.evidence: dict[NodeId, Evidence] = {}
        self.gray_since = 0.0


def independent(a: ServerRow, b: ServerRow) -> bool:
    """Whether no single provider and no single owner other than the operator stands behind both."""
    return a.provider != b.provider and (a.owner != b.owner or a.owner == OPERATOR)


def is_gray(load: Load) -> bool:
    """A server that answers and is no use all the same (D28)."""
    return not load.writable or load.commit_p99_ms > GRAY_COMMIT_P99_MS


class Tiers:
    """The machine. It keeps only evidence; tiers and their times are in the server rows."""

    def __init__(self, state: FleetState, liveness: Liveness, now: float) -> None:
        self._state = state
        self._liveness = liveness
        self._cases: dict[str, _Case] = {}
        self._judged_at = now
        self.listen(now)

    # --- Evidence --------------------------------------------------------------------------------
    def listen(self, now: float) -> None:
        """HQ hears the fleet from now on: it started, or it was cut off until now."""
        self._state.listens_from = now
        for case in self._cases.values():
            case.gray_since = now if case.gray_since else 0.0

    def witnessed(self, event: Witnessed, now: float) -> bool:
        """Take testimony. False when the witness has no standing or speaks of another node."""
        witness = self._state.name_of.get(event.witness)
        server = self._state.servers.get(event.name)
        if witness is None or server is None or server.node != event.node:
            return False
        if not self._state.is_member(event.witness):
            return False
        if event.name not in self._state.peers(witness):
            return False
        since = now - max(0.0, event.failed_s)
        self._case(server).evidence[event.witness] = Evidence(witness, now, since, event)
        return True

    def loaded(self, name: str, load: Load, now: float) -> None:
        """Take a server's word about itself."""
        server = self._state.servers[name]
        if is_gray(load):
            case = self._case(server)
            case.gray_since = case.gray_since or now
        elif name in self._cases:
            self._cases[name].gray_since = 0.0

    def forget(self, name: str) -> None:
        """Another node sits there now: what was said of the last one is void."""
        self._cases.pop(name, None)

    def open_cases(self, now: float) -> list[str]:
        """Names that must be judged again as time goes by."""
        servers = self._state.servers
        silent = {n for n in self._liveness.overdue(now) if servers[n].role in ACCESS}
        return sorted(self._state.down | self._state.doubted | self._cases.keys() | silent)

    def evidence(self, name: str, now: float) -> tuple[Evidence, ...]:
        """The testimony about `name` that has not aged out."""
        case = self._cases.get(name)
        if case is None:
            return ()
        oldest = now - self._state.pace.evidence_s
        return tuple(item for item in case.evidence.values() if item.received_at >= oldest)

    def is_confirmed(self, name: str, now: float) -> bool:
        """Whether what witnesses say now makes the server RED, whatever its row says."""
        server = self._state.servers[name]
        return self._signal(server, self.evidence(name, now), now) is Signal.CONFIRMED

    def has_listened(self, now: float) -> bool:
        """Whether HQ has heard the fleet for as long as witnesses take to repeat themselves."""
        return now >= self._state.listens_from + self._state.pace.evidence_s

    def is_hearsay(self, name: str, now: float) -> bool:
        """Whether a server is down only because HQ wrote so before it was restarted, stood still
        or was cut off: it may have come back since. Until witnesses have had time to repeat
        themselves, which takes one evidence window, and the server was judged after that, what
        they say now must amount to the same verdict; a doubt does not."""
        if self.has_listened(self._judged_at):
            return False
        server = self._state.servers[name]
        is_down = server.tier in DOWN and self._state.is_member(server.node)
        return is_down and not self.is_confirmed(name, now)

    def judged(self, now: float) -> None:
        """Every open case was judged at this moment."""
        self._judged_at = now

    def gray_since(self, name: str) -> float:
        """Since when the server has said it is no use; 0 when it does not."""
        case = self._cases.get(name)
        return case.gray_since if case else 0.0

    def _case(self, server: ServerRow) -> _Case:
        case = self._cases.get(server.name)
        if case is None or case.node != server.node:
            case = self._cases[server.name] = _Case(server.node)
        return case

    # --- Judgement -------------------------------------------------------------------------------
    def judge(self, name: str, now: float) -> Change | None:
        """Bring the row of `name` to the tier its evidence supports; None when it is there."""
        server = self._state.servers[name]
        if server.state is not ServerState.ACTIVE:
            return None
        fresh = self.evidence(name, now)
        signal = self._signal(server, fresh, now)
        if signal is Signal.CLEAR and not fresh and not self.gray_since(name):
            self._cases.pop(name, None)
        after = TRANSITIONS[server.tier].get(signal, server.tier)
        if after is server.tier:
            return None
        return self._change(server, after, signal, fresh, now)

    def _change(
        self,
        server: ServerRow,
        after: Tier,
        signal: Signal,
        fresh: tuple[Evidence, ...],
        now: float,
    ) -> Change:
        failing = [item.since for item in fresh if _is_failing(item)]
        failed_at = min(failing, default=server.first_failed_at or now)
        row = msgspec.structs.replace(
            server,
            tier=after,
            tier_at=now,
            first_failed_at=0.0 if after in (G, Y) else failed_at,
        )
        self._state.put(row)
        return Change(row, server.tier, signal, fresh)

    def _signal(self, server: ServerRow, fresh: tuple[Evidence, ...], now: float) -> Signal:
        if not self._state.is_member(server.node):
            return Signal.GONE
        beating = server.name not in self._liveness.overdue(now)
        if server.role in ACCESS and not beating:
            return Signal.CONFIRMED
        failing = [item for item in fresh if _is_failing(item)]
        reached = [item for item in fresh if item.said.probe_ok]
        if failing and (not reached or self._domains(reached) < self._domains(failing)):
            if self._is_confirmed(server, failing, beating, now):
                return Signal.CONFIRMED
            if self._has_relapsed(server, fresh, failing, now):
                return Signal.RELAPSED
            if not self._is_regional(server, fresh, failing, now):
                return Signal.FAILING
        if self.gray_since(server.name):
            return Signal.GRAY
        if any(item.said.tier is not Tier.GREEN for item in fresh):
            return Signal.WATCHED
        if reached:
            return Signal.CLEAR
        # Just started, HQ has not yet heard those who may doubt; without them nothing is clear.
        spoke = beating and self._liveness.spoke(server.name) and self.has_listened(now)
        return Signal.CLEAR if spoke else Signal.UNKNOWN

    def _has_relapsed(
        self, server: ServerRow, fresh: tuple[Evidence, ...], failing: list[Evidence], now: float
    ) -> bool:
        """Asked once all who may know have spoken: the first of them may have begun to count anew,
        or lie. Until then the verdict is hearsay anyway."""
        if server.tier is not R or not self.has_listened(now):
            return False
        anew = all(item.since > server.tier_at for item in failing)
        return anew and not self._is_regional(server, fresh, failing, now)

    def _is_confirmed(
        self, server: ServerRow, failing: list[Evidence], beating: bool, now: float
    ) -> bool:
        pace = self._state.pace
        confirming = [item for item in failing if now - item.since >= pace.red_s]
        if len(confirming) < RED_WITNESSES_MIN:
            return False
        starting = now < server.seated_at + pace.start_s
        if starting and not self._liveness.spoke(server.name):
            return False
        # Who spoke while it is said to have failed was not dead: peers beyond a cut count for long,
        # and then it is silent for another reason, a reboot.
        spoke = beating or self._liveness.spoke_within(server.name, pace.red_s, now)
        if spoke and not self._is_blocked(server, confirming, self._standing_peers(server.name)):
            return False
        return self._domains(confirming) >= self._needed(self._living_peers(server.name, now))

    def _needed(self, living: list[str]) -> int:
        """Independent witnesses that it takes: two, or one where only one domain is left."""
        alive = count_independent(self._state.servers[name] for name in living)
        return min(RED_WITNESSES_MIN, max(1, alive))

    def _is_blocked(
        self, server: ServerRow, confirming: list[Evidence], standing: list[str]
    ) -> bool:
        """Whether a server that talks to HQ is out of service all the same: every standing peer of
        another failure domain says so, or a majority of all and the clients as well. Clients tell
        every server that answers them: one witness who alone has heard them is not believed."""
        said = {item.witness for item in confirming}
        servers = self._state.servers
        others = {peer for peer in standing if independent(servers[peer], server)}
        majority = len(said & set(standing)) * 2 > len(standing)
        if not majority or others <= said:
            return majority
        complaining = [item for item in confirming if _do_clients_complain(item)]
        return self._domains(complaining) >= self._needed(standing)

    def _is_regional(
        self, server: ServerRow, fresh: tuple[Evidence, ...], failing: list[Evidence], now: float
    ) -> bool:
        servers = self._state.servers
        seen = {servers[item.witness].region for item in failing}
        for item in failing:
            seen.update(item.said.regions)
        known = seen | {servers[name].region for name in self._living_peers(server.name, now)}
        for item in fresh:
            known.update(item.said.regions)
        return len(seen) < min(ORANGE_REGIONS_MIN, len(known))

    def _living_peers(self, name: str, now: float) -> list[str]:
        overdue = self._liveness.overdue(now)
        return [peer for peer in self._standing_peers(name) if peer not in overdue]

    def _standing_peers(self, name: str) -> list[str]:
        """Peers that are not known to be down: one of whom nothing is heard may reach it well."""
        servers = self._state.servers
        return [
            peer
            for peer in self._state.peers(name)
            if servers[peer].tier not in DOWN and servers[peer].state is ServerState.ACTIVE
        ]

    def _domains(self, items: Iterable[Evidence]) -> int:
        return count_independent(self._state.servers[item.witness] for item in items)

    # --- BLACK -----------------------------------------------------------------------------------
    def lost_provider(self, provider: str, now: float) -> bool:
        """Whether several servers of `provider` are RED together (§4.4). Revoked ones do not count:
        an operator who shuts two nodes out has not lost a provider."""
        state = self._state
        names = self._known_to_stand_at(provider)
        since = now - state.pace.black_window_s
        red = [
            name
            for name in names
            if name in state.down
            and state.servers[name].role in STORES
            and state.servers[name].tier_at >= since
            and state.is_member(state.servers[name].node)
        ]
        if len(red) < BLACK_SERVERS_MIN:
            return False
        silent = names.intersection(self.unanswering(provider, now))
        return len(silent) >= BLACK_FRACTION_MIN * len(names)

    def _known_to_stand_at(self, provider: str) -> set[str]:
        """Its servers that HQ ordered there. Where there are none, those whose owners say so: their
        word must not be the end of a provider that HQ does know."""
        rows = [self._state.servers[name] for name in self._state.servers_at.get(provider, ())]
        seated = {row.name: row.owner for row in rows if row.node}
        ordered = {name for name, owner in seated.items() if owner == OPERATOR}
        return ordered or set(seated)

    def unanswering(self, provider: str, now: float) -> list[str]:
        """The provider's servers that are RED or have gone silent."""
        state, overdue = self._state, self._liveness.overdue(now)
        return sorted(
            name
            for name in state.servers_at.get(provider, ())
            if state.servers[name].state is ServerState.ACTIVE
            and (name in state.down or name in overdue)
        )

    def share_fate(self, provider: str, now: float) -> list[str]:
        """Those of them that are BLACK with their lost provider: who is silent to HQ alone is not,
        while a peer lives that would say if it could not reach it."""
        return [
            name
            for name in self.unanswering(provider, now)
            if name in self._state.down or self._is_out_of_reach(name, now)
        ]

    def _is_out_of_reach(self, name: str, now: float) -> bool:
        """Whether peers say so and none has reached it; nobody is left to ask: then too."""
        said = {item.said.probe_ok for item in self.evidence(name, now)}
        return True not in said and (False in said or not self._living_peers(name, now))

    def blacken(self, name: str, now: float) -> Change | None:
        """A server that shares the fate of its provider."""
        server = self._state.servers[name]
        if server.tier is Tier.BLACK:
            return None
        return self._change(server, Tier.BLACK, Signal.CONFIRMED, self.evidence(name, now), now)


def _is_failing(item: Evidence) -> bool:
    return item.said.probe_ok is False and item.said.failures >= ORANGE_FAILURES


def _do_clients_complain(item: Evidence) -> bool:
    """More than ten clients, or a fifth of those active there (ADR 0002)."""
    small = max(YELLOW_CLIENTS_MIN, ceil(item.said.clients_active * YELLOW_ACTIVE_FRACTION))
    return item.said.clients >= min(YELLOW_CLIENTS_OVER + 1, small)


def count_independent(rows: Iterable[ServerRow]) -> int:
    """How many of `rows` are independent of each other: exact up to two, a lower bound above."""
    domains = list({(row.provider, row.owner): row for row in rows}.values())
    best = 0
    for first in domains:
        chosen = [first]
        for row in domains:
            if all(independent(row, other) for other in chosen):
                chosen.append(row)
        best = max(best, len(chosen))
        if best == len(domains):
            break
    return best
