"""What an agent decides, as one pure machine: no file, no clock, no HQ.

Theory of operation. The driver (`node.agent`) feeds events in and obeys the Effects:

* `persist` holds at most one `Memory`: it is on disk before anything in `send` leaves;
* `send` holds messages for the role (`wire.control.ToRole`);
* `timers` holds, after the role's death, when to start it again.

Phases and what moves between them:

| phase    | meaning                                        | leaves on            |
|----------|------------------------------------------------|----------------------|
| WAITING  | the role is not running                        | started              |
| STARTING | the role runs and has not said where it serves | Ready, exit          |
| SERVING  | the role serves                                | exit, retired        |
| RETIRED  | headquarters has no more use for this node     | never                |

A `Desired` is followed in the order (term, version): a deposed HQ has a lower term and is refused
(D25). The last one is remembered and applied to every new role process, HQ or no HQ: a node runs
for months without one. Alerts wait in memory, the newest for each server, until HQ took them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from holdfast.errors import PeerFault
from holdfast.logic.effects import NOTHING, Audit, Effects
from holdfast.logic.fleet.model import Load, Role
from holdfast.wire.control import Apply, Ready, Status, Stop
from holdfast.wire.hq import Alert, Desired

RESTART_S: Final = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Elapsed seconds before a role that died is started again. The first wait is systemd's own: who
pushes to this server waits for it. The others are for a role that cannot stay up."""
STEADY_S: Final = 30.0
"""A role that served this long died of something new: the waits start over. One that dies every
half minute then spends 2 % of a core on starting, which needs no longer memory."""
ALERTS_MAX: Final = 4_096
"""One for each server; no fleet that one node watches has more."""


class Phase(StrEnum):
    WAITING = "waiting"
    STARTING = "starting"
    SERVING = "serving"
    RETIRED = "retired"


class Memory(msgspec.Struct, frozen=True):
    """What the agent must not forget: HQ's last word, and what HQ was not told yet."""

    desired: Desired | None = None
    alerts: tuple[Alert, ...] = ()


class Machine:
    """The decisions of one agent. `now` is elapsed seconds everywhere."""

    def __init__(self, role: Role, memory: Memory) -> None:
        self.role = role
        self.memory = memory
        self.phase = Phase.WAITING
        self.addresses: tuple[str, ...] = ()
        self.load = Load()
        self.filled = False
        self.filled_of = b""
        self._deaths = 0
        self._serving_since = 0.0
        if memory.desired is not None and memory.desired.retired:
            self.phase = Phase.RETIRED

    @property
    def desired_version(self) -> int:
        return self.memory.desired.version if self.memory.desired else 0

    @property
    def term(self) -> int:
        return self.memory.desired.term if self.memory.desired else 0

    @property
    def draining(self) -> bool:
        return self.memory.desired is not None and self.memory.desired.draining

    # --- the role's process ----------------------------------------------------------------------
    def started(self) -> Effects:
        """A role process runs: tell it what HQ last wanted."""
        assert self.phase is Phase.WAITING, f"a second role while {self.phase}"
        self.phase = Phase.STARTING
        if self.memory.desired is None:
            return NOTHING
        return Effects(send=(Apply(self.memory.desired),))

    def ready(self, message: Ready, now: float) -> Effects:
        """The role serves at these addresses."""
        if self.phase is Phase.RETIRED:
            return NOTHING
        if self.phase is Phase.WAITING:
            raise PeerFault("a role that is not running says it is ready")
        if not message.addresses:
            raise PeerFault("a role that is ready nowhere")
        first = self.phase is not Phase.SERVING
        self.phase = Phase.SERVING
        self.addresses = message.addresses
        if first:
            self._serving_since = now
        return NOTHING

    def status(self, message: Status) -> Effects:
        """Figures for the next heartbeat."""
        self.load = message.load
        self.filled, self.filled_of = message.filled, message.filled_of
        return NOTHING

    def exited(self, status: int, now: float) -> Effects:
        """The role's process ended, whatever the reason: `timers` says when to start it again."""
        if self.phase is Phase.RETIRED:
            return NOTHING
        served = self.phase is Phase.SERVING and now - self._serving_since >= STEADY_S
        self._deaths = 0 if served else self._deaths
        delay = RESTART_S[min(self._deaths, len(RESTART_S) - 1)]
        self._deaths += 1
        self.phase = Phase.WAITING
        self.load = msgspec.structs.replace(self.load, sessions=0, requests_per_s=0.0)
        audit = Audit("role-exited", self.role, {"status": status, "restart_s": delay})
        return Effects(timers=(delay,), audit=(audit,))

    def replaced(self) -> Effects:
        """The role made room for one that waits: nobody died."""
        if self.phase is not Phase.RETIRED:
            self.phase = Phase.WAITING
        return NOTHING

    # --- what HQ wants ---------------------------------------------------------------------------
    def desire(self, desired: Desired) -> Effects:
        """HQ says what it wants. Raises PeerFault when it is not for a node like this one."""
        if desired.role != self.role:
            raise PeerFault(f"HQ wants a {desired.role} of a {self.role}", code="role")
        held = self.memory.desired
        if held is not None and (desired.term, desired.version) <= (held.term, held.version):
            return NOTHING
        if held is not None and held.retired:
            return NOTHING
        persist = self._remember(msgspec.structs.replace(self.memory, desired=desired))
        send: tuple[Apply | Stop, ...] = ()
        if desired.retired:
            send = (Stop(),) if self.phase is not Phase.WAITING else ()
            self.phase = Phase.RETIRED
        elif self.phase is not Phase.WAITING:
            send = (Apply(desired),)
        return persist + Effects(send=send)

    # --- alerts ----------------------------------------------------------------------------------
    def raised(self, alert: Alert) -> Effects:
        """The role saw something: keep it for HQ, in place of an older one of that server."""
        others = tuple(held for held in self.memory.alerts if held.name != alert.name)
        held = next((held for held in self.memory.alerts if held.name == alert.name), None)
        if held is not None and held.observed_at > alert.observed_at:
            return NOTHING
        alerts = (*others, alert)[-ALERTS_MAX:]
        return self._remember(msgspec.structs.replace(self.memory, alerts=alerts))

    def next_alert(self) -> Alert | None:
        """The alert that waits longest."""
        return self.memory.alerts[0] if self.memory.alerts else None

    def delivered(self, alert: Alert) -> Effects:
        """HQ took this alert (or refused it for good); a newer one of that server stays."""
        alerts = tuple(held for held in self.memory.alerts if held != alert)
        return self._remember(msgspec.structs.replace(self.memory, alerts=alerts))

    def _remember(self, memory: Memory) -> Effects:
        if memory == self.memory:
            return NOTHING
        self.memory = memory
        return Effects(persist=(memory,))
