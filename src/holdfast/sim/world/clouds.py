"""Hosting providers: machines and an interface to them that is slow, fails and lies.

A cloud keeps its own log of what was made and destroyed, and why it was asked to. The judges count
spawns there and nowhere else.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from holdfast.logic.fleet import events
from holdfast.sim.world.chance import Chance

CALL_S: Final = 0.5


class CloudOptions(msgspec.Struct, frozen=True):
    """How bad a cloud is. Means are seconds, probabilities are per call or per machine."""

    call_delay_mean: float = 0.5
    boot_s_min: float = 25.0
    boot_delay_mean: float = 10.0
    failure_probability: float = 0.0
    """A call that is refused before anything is done."""
    late_failure_probability: float = 0.0
    """A call that is carried out and answered with an error all the same."""
    dud_probability: float = 0.0
    """A machine that is listed as running and never joins."""
    omission_probability: float = 0.0
    """A list that leaves machines out."""


class Machine(msgspec.Struct):
    """A machine as its cloud knows it. `intent` is the name it was ordered under."""

    intent: str
    region: str
    token: bytes
    made_at: float
    dud: bool = False
    node: bytes = b""


class Entry(NamedTuple):
    """A line of a cloud's own log."""

    at: float
    verb: str
    resource: str


class Refused(Exception):
    """The cloud did not, or says so. `done` when it did."""

    def __init__(self, done: bool) -> None:
        super().__init__("the cloud answered with an error")
        self.done = done


class Cloud:
    """One provider. `reachable` is its interface, `powered` its machines."""

    def __init__(self, name: str, options: CloudOptions, chance: Chance) -> None:
        self.name = name
        self.options = options
        self._chance = chance
        self.reachable = True
        self.powered = True
        self.machines: dict[str, Machine] = {}
        self.log: list[Entry] = []
        self._listed: tuple[events.Machine, ...] | None = None

    def delay(self) -> float:
        """How long the next call takes."""
        return self._chance.delay(self.options.call_delay_mean, 0.1)

    def boot_delay(self) -> float:
        """How long the next machine takes to boot."""
        return self._chance.delay(self.options.boot_delay_mean, self.options.boot_s_min)

    def calm(self) -> None:
        """No faults any more."""
        self.options = CloudOptions()

    def create(self, name: str, region: str, token: bytes, now: float) -> Machine:
        """Make a machine; the name must be free. Raises Refused."""
        self._may_fail()
        if name in self.machines:
            raise Refused(done=False)
        dud = self._chance.happens(self.options.dud_probability)
        machine = self.machines[name] = Machine(name, region, token, now, dud)
        self._listed = None
        self.log.append(Entry(now, "create", name))
        return machine

    def delete(self, name: str, now: float) -> Machine | None:
        """Destroy a machine; it is no error when there is none. Raises Refused."""
        self._may_fail()
        machine = self.machines.pop(name, None)
        if machine is not None:
            self._listed = None
            self.log.append(Entry(now, "delete", name))
        return machine

    def list(self) -> tuple[events.Machine, ...]:
        """The machines there are, or most of them. Raises Refused."""
        self._may_fail()
        if self._listed is None:
            self._listed = tuple(events.Machine(name, True) for name in self.machines)
        if self._listed and self._chance.happens(self.options.omission_probability):
            return self._listed[: self._chance.below(len(self._listed))]
        return self._listed

    def has(self, name: str) -> bool:
        """Whether `list` would show the machine. Raises Refused."""
        self._may_fail()
        return name in self.machines

    def answered(self) -> None:
        """The answer to a call that was carried out. Raises Refused when it is an error."""
        if self._chance.happens(self.options.late_failure_probability):
            raise Refused(done=True)

    def _may_fail(self) -> None:
        if not self.reachable or self._chance.happens(self.options.failure_probability):
            raise Refused(done=False)
