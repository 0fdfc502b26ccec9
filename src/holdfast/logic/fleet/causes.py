"""What ails a server, in the words that decide what to do about it (seed 004 §4, D28, D29).

Tiers say how sure HQ is; a cause says of what. One dead machine, a service blocked while its
heartbeat lives, a provider that is down and an HQ that is itself cut off look alike to whoever
counts failures, and each calls for something else.

| cause         | what is so                                               | what helps      |
|---------------|----------------------------------------------------------|-----------------|
| well          | nobody doubts it                                         |                 |
| doubted       | somebody does, or few failures                           | wait            |
| sick          | it says itself that it cannot write, or is very slow     | drain, replace  |
| blocked       | it talks to HQ; peers or clients do not reach it         | another address |
| dead          | it is silent, and peers do not reach it                  | replace         |
| excluded      | an operator revoked its node                             | replace         |
| provider down | its provider is lost                                     | go elsewhere    |
| hq cut off    | so much seems dead at once that HQ suspects itself       | freeze          |
"""

from __future__ import annotations

from enum import StrEnum

from holdfast.logic.fleet.model import Tier
from holdfast.logic.fleet.rows import ServerRow


class Cause(StrEnum):
    """See the module."""

    WELL = "well"
    DOUBTED = "doubted"
    SICK = "sick"
    BLOCKED = "blocked"
    DEAD = "dead"
    EXCLUDED = "excluded"
    PROVIDER_DOWN = "provider down"
    HQ_CUT_OFF = "hq cut off"


def cause_of(server: ServerRow, *, member: bool, beating: bool, sick: bool, frozen: bool) -> Cause:
    """The cause of a server's tier. `member`: its node is not shut out; `beating`: HQ hears it;
    `sick`: it said that it is no use; `frozen`: HQ suspects itself. Strongest first."""
    if server.tier is Tier.GREEN:
        return Cause.WELL
    if not member:
        return Cause.EXCLUDED
    if frozen and not beating:
        return Cause.HQ_CUT_OFF
    if server.tier is Tier.BLACK:
        return Cause.PROVIDER_DOWN
    if sick:
        return Cause.SICK
    if server.tier is Tier.YELLOW:
        return Cause.DOUBTED
    return Cause.BLOCKED if beating else Cause.DEAD
