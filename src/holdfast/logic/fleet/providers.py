"""Providers: lost (BLACK), back again, and what they list (seed 004 §4.4, §5.4).

A provider is lost when several of its servers are RED together; then nothing is ordered from it.
It is back when its cloud API has answered twice in a row and one of the nodes it had lost has
spoken again, or five minutes have passed since the loss. A provider HQ cannot order from
(somebody's own machines) has no API to ask: there one voice is enough. A machine that a provider
lists and no intent ever ordered is a stranger: it is reported, never touched. A machine of a
serving node that it lists no more has vanished: that is reported too.
"""

from __future__ import annotations

import msgspec

from holdfast.limits import PROVIDER_BACK_SURVEYS, PROVIDER_MUTE_SURVEYS
from holdfast.logic.effects import Audit
from holdfast.logic.fleet.events import Machine, Survey
from holdfast.logic.fleet.healing import Healing
from holdfast.logic.fleet.rows import IntentState, NodeState, ProviderRow
from holdfast.logic.fleet.state import FleetState

STRANGERS_MAX = 1_000


class Providers:
    """The machine over provider rows and surveys."""

    def __init__(self, state: FleetState, healing: Healing) -> None:
        self._state = state
        self._healing = healing
        self._surveyed_at: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        self._answers: dict[str, int] = {}  # in a row; negative: silences in a row
        self._spoke: set[str] = set()
        self._strangers: set[tuple[str, str]] = set()
        self._vanished: set[tuple[str, str]] = set()

    def add(self, names: tuple[str, ...], regions: tuple[str, ...]) -> None:
        """Make providers known; regions are added to those they have."""
        for name in names:
            known = self._state.providers.get(name)
            if known is None:
                self._state.put(ProviderRow(name=name, regions=regions))
                continue
            merged = tuple(dict.fromkeys((*known.regions, *regions)))
            self._state.put(msgspec.structs.replace(known, regions=merged))

    def lose(self, name: str, now: float) -> bool:
        """Mark a provider lost. False when it already was."""
        row = self._state.providers.get(name) or ProviderRow(name=name, regions=())
        if row.state == "lost":
            return False
        self._answers[name] = 0
        self._spoke.discard(name)
        self._state.put(msgspec.structs.replace(row, state="lost", lost_at=now))
        return True

    def spoke(self, provider: str, now: float) -> list[Audit]:
        """A node that the provider had lost gave a sign of life."""
        self._spoke.add(provider)
        row = self._state.providers.get(provider)
        if row is None or row.regions or row.state != "lost":
            return []
        return self._back(row, now)

    def surveys(self, now: float) -> list[Survey]:
        """The providers to ask now; one that never answered the last question is asked again."""
        due = []
        for name, row in self._state.providers.items():
            if (
                row.regions
                and now - self._asked.get(name, float("-inf")) >= self._state.pace.survey_s
            ):
                self._asked[name] = now
                due.append(Survey(name))
        return due

    def surveyed(self, name: str, machines: tuple[Machine, ...] | None, now: float) -> list[Audit]:
        """Take a provider's list, or its silence."""
        row = self._state.providers.get(name)
        if row is None:
            return []
        if machines is None:
            self._answers[name] = min(0, self._answers.get(name, 0)) - 1
            if self._answers[name] <= -PROVIDER_MUTE_SURVEYS:
                self._state.unreachable.add(name)
            return []
        self._state.unreachable.discard(name)
        self._answers[name] = max(0, self._answers.get(name, 0)) + 1
        audit = self._judge(name, machines, now)
        waited = now - row.lost_at >= self._state.pace.provider_lost_s
        enough = self._answers[name] >= PROVIDER_BACK_SURVEYS
        if row.state == "lost" and enough and (waited or name in self._spoke):
            audit += self._back(row, now)
        return audit

    def _back(self, row: ProviderRow, now: float) -> list[Audit]:
        self._state.put(msgspec.structs.replace(row, state="up", back_at=now))
        return [Audit("provider.back", row.name, {"lost_s": round(now - row.lost_at, 3)})]

    def _judge(self, name: str, machines: tuple[Machine, ...], now: float) -> list[Audit]:
        """Compare the machines with the intents that should have made them."""
        audit: list[Audit] = []
        running = {machine.name for machine in machines if machine.running}
        for resource in sorted(running):
            intent = self._state.intents.get(resource)
            if intent is not None and intent.state is IntentState.FAILED:
                self._healing.reap_machine(resource, intent, now, again=True)
            elif intent is None and resource not in self._state.node_on:
                audit += self._stranger(name, resource)
        audit += self._missing(name, running)
        patience_s = 2 * self._state.pace.survey_s
        for key in list(self._state.open):
            intent = self._state.intents[key]
            if intent.provider != name or intent.state is not IntentState.ORDERED:
                continue
            if key not in running and now - intent.ordered_at >= patience_s:
                audit += self._healing.fail(intent, "the machine is gone", now)
        return audit

    def _missing(self, provider: str, running: set[str]) -> list[Audit]:
        """Machines of serving nodes that the provider has no more, though nobody gave them back.
        The node is judged by its heartbeats and peers all the same: this only says who did it."""
        audit: list[Audit] = []
        for node in self._state.nodes.values():
            if node.provider != provider or not node.intent or node.state is not NodeState.ACTIVE:
                continue
            mark = (provider, node.intent)
            if node.intent in running:
                self._vanished.discard(mark)
            elif mark not in self._vanished and len(self._vanished) < STRANGERS_MAX:
                self._vanished.add(mark)
                detail = {"resource": node.intent, "server": node.name}
                audit.append(Audit("machine.vanished", provider, detail))
        return audit

    def _stranger(self, provider: str, resource: str) -> list[Audit]:
        mark = (provider, resource)
        if mark in self._strangers or len(self._strangers) >= STRANGERS_MAX:
            return []
        self._strangers.add(mark)
        return [Audit("machine.unknown", provider, {"resource": resource[:256]})]
