"""The operator's verbs about servers of the pool, mounted on the admin port (seed 004 §6.3).

| method and path                       | shape               |
|---------------------------------------|---------------------|
| POST /admin/v1/servers/{name}/drain   | Drain -> Done       |
| POST /admin/v1/drain                  | MassDrain -> Done   |
| GET  /admin/v1/standby                | StandbyView         |
| POST /admin/v1/standby                | StandbyOrder -> StandbyView |

A drained server takes no new groups and serves on until another machine has taken its name and is
filled; only then does its machine go. That is one machine for one name: who sits there, and who
may follow when, is decided in `logic.fleet`. Moving slots is in `hq.rebalance_admin`, renewing
machines in `hq.rotation_admin`.
"""

from __future__ import annotations

from holdfast.crypto.pure import base32_decode
from holdfast.errors import UsageError
from holdfast.hq.parts import Parts
from holdfast.hq.rebalance_admin import RebalanceVerbs
from holdfast.hq.rotation_admin import RotationVerbs
from holdfast.hq.verbs import READERS, RUNNERS, Asked, Done, Verb
from holdfast.limits import STANDBYS_PER_PLACE_MAX
from holdfast.limits.control import DRAIN_NAMES_MAX, DRAINS_ALONE_MAX
from holdfast.logic.fleet.model import ACCESS
from holdfast.logic.fleet.rows import ServerState
from holdfast.wire.codec import Message


class Drain(Message):
    """Why; it is written to the audit log."""

    reason: str = ""


class MassDrain(Message):
    """Several servers at once: a provider that is given up."""

    names: tuple[str, ...]
    reason: str = ""


class StandbyOrder(Message):
    """How many machines stand by in every region of every provider in use."""

    per_place: int


class StandbyView(Message):
    """`ready` of the `ordered` machines would hear a call at once."""

    per_place: int
    ready: int
    ordered: int


class FleetVerbs:
    """The handlers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def verbs(self) -> tuple[Verb, ...]:
        """The rows of these verbs; the other admin verbs are beside them."""
        return (
            Verb("POST", "/servers/{name}/drain", RUNNERS, self.drain, Drain),
            Verb("POST", "/drain", RUNNERS, self.drain_many, MassDrain, second=True),
            Verb("GET", "/standby", READERS, self.standby),
            Verb("POST", "/standby", RUNNERS, self.keep_standbys, StandbyOrder),
            *RebalanceVerbs(self._parts).verbs(),
            *RotationVerbs(self._parts).verbs(),
        )

    async def drain(self, asked: Asked, body: Drain) -> Done:
        name = asked.path_params["name"]
        leaving = [s.name for s in self._parts.acting().view().servers if s.draining]
        if name not in leaving and len(leaving) >= DRAINS_ALONE_MAX:
            raise UsageError(
                f"{len(leaving)} servers drain already; order more than that together, so that a "
                "second operator sees it: holdfast hq drain NAME NAME"
            )
        await self._drain((name,), body.reason)
        return Done(name)

    async def drain_many(self, _asked: Asked, body: MassDrain) -> Done:
        if not 0 < len(body.names) <= DRAIN_NAMES_MAX:
            raise UsageError(f"name 1 to {DRAIN_NAMES_MAX} servers to drain")
        await self._drain(body.names, body.reason)
        return Done(", ".join(body.names))

    async def standby(self, _asked: Asked, _body: None) -> StandbyView:
        return StandbyView(*self._parts.acting().standbys())

    async def keep_standbys(self, asked: Asked, body: StandbyOrder) -> StandbyView:
        if not 0 <= body.per_place <= STANDBYS_PER_PLACE_MAX:
            raise UsageError(f"0 to {STANDBYS_PER_PLACE_MAX} machines in every place")
        await self._parts.acting().keep_standbys(body.per_place)
        return await self.standby(asked, None)

    async def _drain(self, names: tuple[str, ...], reason: str) -> None:
        """Every name is looked at before the first server is told. Raises UsageError."""
        brain = self._parts.acting()
        servers = {server.name: server for server in brain.view().servers}
        nodes = []
        for name in names:
            server = servers.get(name)
            if server is None or server.state is not ServerState.ACTIVE or not server.node:
                raise UsageError(f"no server {name} is in service; see: holdfast hq servers")
            if server.role in ACCESS:
                raise UsageError(f"{name} is an {server.role}: holdfast access drain {name}")
            nodes.append(base32_decode(server.node))
        for node in nodes:
            await brain.left(node, reason or "drained by an operator")
