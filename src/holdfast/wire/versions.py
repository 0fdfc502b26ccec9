"""Versions of the node wire: peers speak the lower common version (D19).

Node wire is what headquarters, agents and roles of one network say to each other. Version N and
version N+1 work together because a sender leaves out what its receiver's version does not have;
unknown fields stay refused within a version. A field that a version adds is named here, has a
default, and may be left out by whoever does not know it. A version adds fields and nothing else.

| who says which version it speaks | where                                                     |
|----------------------------------|-----------------------------------------------------------|
| a node to headquarters           | `GET /v1/desired?after=N&wire=W`; without `wire` it is 1  |
| headquarters to a node           | `Desired.wire`; where the field is missing it is 1        |
| an agent to its role             | the variable HOLDFAST_AGENT_WIRE; without it, it is ours  |
| a role to its agent              | `Release.wire` of the release it was started from         |
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from holdfast.wire.control import Apply, Status
from holdfast.wire.hq import Desired, Heartbeat

WIRE: Final = 2
"""The newest version that this program speaks."""
WIRE_MIN: Final = 1
"""The oldest: one back."""
SINCE: Final[dict[type[msgspec.Struct], dict[str, int]]] = {
    Desired: {"wire": 2, "release": 2, "release_required_at": 2},
    Heartbeat: {
        "release": 2,
        "proved": 2,
        "refused": 2,
        "refused_why": 2,
        "deferred_until": 2,
        "filled_of": 2,
    },
    Status: {"filled_of": 2},
}
"""Fields that are not of version 1, and the version that brought each."""
_CARRIERS: Final[dict[type[msgspec.Struct], tuple[str, ...]]] = {Apply: ("desired",)}
"""Messages that carry one of those."""
_NEWEST: Final = max(since for fields in SINCE.values() for since in fields.values())
assert _NEWEST <= WIRE, "a field of a version that we do not speak"


def at_wire(message: msgspec.Struct, wire: int) -> Any:
    """`message` as a peer of version `wire` understands it: itself, or a map without the fields
    that are newer, ready for `pack` and `pack_json`."""
    kind = type(message)
    newer = {name for name, since in SINCE.get(kind, {}).items() if since > wire}
    inside = _CARRIERS.get(kind, ())
    if wire >= WIRE or not (newer or inside):
        return message
    fields: dict[str, Any] = {}
    config = message.__struct_config__
    if config.tag_field is not None:
        fields[config.tag_field] = config.tag
    for name in message.__struct_fields__:
        if name not in newer:
            value = getattr(message, name)
            fields[name] = at_wire(value, wire) if name in inside else value
    return fields


def common(theirs: int) -> int:
    """The version to speak with a peer that speaks `theirs`."""
    return max(WIRE_MIN, min(theirs, WIRE))
