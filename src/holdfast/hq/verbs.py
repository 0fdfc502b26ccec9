"""Who may do what at the operator's port: one row for each verb (DESIGN §4, seed 004 §5.3).

| role        | may                                                                             |
|-------------|---------------------------------------------------------------------------------|
| owner       | everything, operators and their keys included                                   |
| operator    | run the network                                                                 |
| auditor     | look at everything, change nothing                                              |
| participant | look at the state of the network, as everybody with a machine in it may         |

Whoever holds `admin.json`, which is on headquarters' own disk, is the owner `operator` and acts
alone: the disk holds every key anyway, and a lost or stolen key must not lock its owner out. What
anybody else asks of a verb with `second` is done when another who may do it agrees.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from holdfast.wire.codec import Message

BASE: Final = "/admin/v1"
"""Where all of these paths begin."""
LOCAL: Final = "operator"
"""The author of what is done with the key in `admin.json`."""


class OperatorRole(StrEnum):
    """What a person may do; a node's role is `logic.fleet.model.Role`."""

    OWNER = "owner"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    PARTICIPANT = "participant"


EVERYBODY: Final = frozenset(OperatorRole)
READERS: Final = frozenset({OperatorRole.OWNER, OperatorRole.OPERATOR, OperatorRole.AUDITOR})
RUNNERS: Final = frozenset({OperatorRole.OWNER, OperatorRole.OPERATOR})
OWNERS: Final = frozenset({OperatorRole.OWNER})


@dataclass(frozen=True)
class Asked:
    """What a handler needs of a request, whether it comes now or was approved later."""

    author: str
    role: OperatorRole
    path_params: Mapping[str, str] = field(default_factory=dict)
    query_params: Mapping[str, str] = field(default_factory=dict)


class Done(Message):
    """It is done."""

    subject: str = ""


Handler = Callable[[Asked, Any], Awaitable[object]]


class Verb(NamedTuple):
    """A row: the path below /admin/v1, who may, the shape of its body, what it does."""

    method: str
    path: str
    roles: frozenset[OperatorRole]
    handler: Handler
    body: Any = None
    second: bool = False

    @property
    def name(self) -> str:
        """As it is written in the audit log and in pending actions."""
        return f"{self.method} {self.path}"

    @property
    def changes(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET"
