"""Between an agent and the role it runs: length-prefixed MessagePack over the child's stdio.

Agent to role on stdin, role to agent on stdout: `u32 big-endian length | message`. Each message
is tagged with its type. The role needs no other way to HQ. Variables of the role's process say the
rest: see below.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.logic.fleet.model import Load
from holdfast.wire.access import UsageReport
from holdfast.wire.hq import Accusation, Alert, Desired

TAKE_OVER: Final = "HOLDFAST_TAKE_OVER"
"""Set for a role that starts while its predecessor serves: say `Warm`, wait for the data."""
AGENT_WIRE: Final = "HOLDFAST_AGENT_WIRE"
"""The newest node wire of the agent."""
KNOBS_FILE: Final = "HOLDFAST_KNOBS"
"""The settings of the release, JSON of `wire.release.Knobs`; not set: the program's own."""


class Begin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="begin"):
    """Agent to a role that was started before anybody knew what it would be: its options."""

    options: tuple[str, ...]


class Apply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="apply"):
    """Agent to role: this is what HQ wants now."""

    desired: Desired


class Certificates(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="certificates"):
    """Agent to role: new certificate files lie in place; serve with them, keep connections."""


class Fronted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="fronted"):
    """Agent to an entry or a core: calls for headquarters are carried at this loopback port."""

    port: int


class Stop(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="stop"):
    """Agent to role: finish what is in flight and exit."""


class Ready(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ready"):
    """Role to agent: serving at these addresses."""

    addresses: tuple[str, ...]


class Warm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="warm"):
    """Role to agent: all is loaded; it serves once its predecessor has let go of the data. Only a
    role that was told to take over says it."""


class Status(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="status"):
    """Role to agent, every few seconds: figures for the next heartbeat."""

    load: Load
    filled: bool
    filled_of: bytes = b""
    """Which records that is said of, as `logic.fleet.filled` has it; empty when it is not."""


class Raise(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="raise"):
    """Role to agent: forward this alert to HQ."""

    alert: Alert


class Accuse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="accuse"):
    """Role to agent: tell HQ that a peer lies. The role says it again as long as the peer does."""

    accusation: Accusation


class Used(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="used"):
    """Role to agent: tell HQ of this usage; the role has it on disk until `Counted` comes."""

    report: UsageReport


class Counted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="counted"):
    """Agent to role: HQ has the report of this sequence for good."""

    sequence: int


ToRole = Begin | Apply | Certificates | Stop | Counted | Fronted
FromRole = Warm | Ready | Status | Raise | Accuse | Used
