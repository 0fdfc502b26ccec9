"""What a machine asks of the world, with the order law in the type.

Every decision in Holdfast is `machine.step(event, now) -> Effects`. The driver of a machine obeys:

1. everything in `persist` is durable before anything in `send` leaves this process;
2. if persisting fails, nothing is sent and the machine is rebuilt from what is durable;
3. `timers` are wake-up hints (elapsed seconds): a machine must also be right when they fire late;
4. `audit` lines are appended in order, after `persist`, and never hold a secret.

The shape is etcd raft's `Ready`: the machine never waits, the driver never decides.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Audit(msgspec.Struct, frozen=True):
    """One line of the audit log: who saw, decided or did what, to whom, and why."""

    verb: str
    subject: str
    detail: dict[str, Any] = {}


class Effects(msgspec.Struct, frozen=True):
    """The outcome of one step. Fields are in the order in which the driver must act on them."""

    persist: tuple[Any, ...] = ()
    send: tuple[Any, ...] = ()
    timers: tuple[float, ...] = ()
    audit: tuple[Audit, ...] = ()

    def __add__(self, other: Effects) -> Effects:
        return Effects(
            persist=self.persist + other.persist,
            send=self.send + other.send,
            timers=self.timers + other.timers,
            audit=self.audit + other.audit,
        )


NOTHING = Effects()
