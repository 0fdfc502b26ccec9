"""The operator's verbs of the access layer, mounted on the admin port.

| method and path                            | shape                        |
|--------------------------------------------|------------------------------|
| GET  /admin/v1/access                      | -> AccessState               |
| POST /admin/v1/access/cells                | CellOrder -> Cell            |
| POST /admin/v1/access/cells/{cell}/turn    | -> Cell                      |
| POST /admin/v1/access/cells/{cell}/isolate | Reason -> Cell               |
| POST /admin/v1/access/cells/{cell}/retire  | Successor -> Cell            |
| POST /admin/v1/access/cells/{cell}/move    | Move -> Moved                |
| POST /admin/v1/access/members              | MemberOrder -> Member        |
| POST /admin/v1/access/members/{id}/standing| StandingOrder -> Done        |
| POST /admin/v1/access/devices              | DeviceOrder -> DeviceMade    |
| POST /admin/v1/access/devices/{id}/revoke  | -> Done                      |
| POST /admin/v1/access/devices/{id}/move    | Move -> Moved                |
| POST /admin/v1/access/devices/{id}/token   | -> DeviceMade                |
| POST /admin/v1/access/cells/{cell}/regenerate | Regenerate -> Cell       |
| POST /admin/v1/access/nodes/{name}/drain   | Reason -> Acknowledged       |
| PUT  /admin/v1/access/policies/{core}      | ExitPolicy -> ExitPolicy     |
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from holdfast.errors import UsageError
from holdfast.hq.access import Access, DeviceMade
from holdfast.hq.verbs import READERS, RUNNERS, Asked, Verb
from holdfast.logic.access.model import (
    Cell,
    CellId,
    Core,
    Device,
    Entry,
    ExitPolicy,
    Member,
    Standing,
)
from holdfast.logic.access.subscription import Usage
from holdfast.logic.fleet.model import NodeId
from holdfast.wire.codec import Message

Left = Callable[[NodeId, str], Awaitable[None]]


class CellOrder(Message):
    id: CellId
    domain: str
    core_domain: str


class MemberOrder(Message):
    owner: str = ""
    quota_bytes: int = 0
    expires_at: int = 0
    devices_max: int = 5
    contact: bytes = b""
    """An HMAC of a messenger id; whoever orders keeps the key."""


class StandingOrder(Message):
    standing: Standing


class DeviceOrder(Message):
    member: str
    cell: CellId
    label: str = ""


class Reason(Message):
    reason: str


class Successor(Message):
    successor: CellId = ""


class Move(Message):
    target: CellId
    count: int


class Regenerate(Message):
    successor: CellId
    domain: str
    core_domain: str
    reserve: CellId
    """Takes the devices meanwhile."""


class Moved(Message):
    moved: int


class Acknowledged(Message):
    """It is done."""

    subject: str


class AccessState(Message):
    """The access layer at a glance."""

    cells: tuple[Cell, ...]
    entries: tuple[Entry, ...]
    cores: tuple[Core, ...]
    members: tuple[Member, ...]
    devices: tuple[Device, ...]
    usage: dict[str, Usage]
    verdicts: dict[CellId, str]
    """What the detector says of each cell: fine, address-blocked, name-blocked."""


def state_of(access: Access) -> AccessState:
    """The access layer as this headquarters has heard of it."""
    book = access.book
    cells = tuple(book.cells[id] for id in sorted(book.cells))
    return AccessState(
        cells=cells,
        entries=tuple(entry for cell in cells for entry in book.entries(cell.id)),
        cores=tuple(core for cell in cells for core in book.core_nodes(cell.id)),
        members=tuple(book.members[id] for id in sorted(book.members)),
        devices=tuple(book.devices[id] for id in sorted(book.devices)),
        usage=dict(book.usage),
        verdicts={cell.id: access.watch.verdict(cell.id).value for cell in cells},
    )


class AccessVerbs:
    """The handlers."""

    def __init__(self, access: Access, left: Left) -> None:
        """`left`: what happens when a node asks to go."""
        self._access = access
        self._left = left

    async def _drain(self, name: str, reason: str) -> None:
        book = self._access.book
        known = {e.name: e.node for cell in book.cells for e in book.entries(cell)}
        known |= {c.name: c.node for cell in book.cells for c in book.core_nodes(cell)}
        if name not in known:
            raise UsageError(f"no entry or core is called {name}")
        await self._left(known[name], reason)

    def verbs(self) -> tuple[Verb, ...]:
        """The rows of these verbs; the other admin verbs are beside them."""
        return (
            Verb("GET", "/access", READERS, self.state, None),
            Verb("POST", "/access/cells", RUNNERS, self.create_cell, CellOrder),
            Verb("POST", "/access/cells/{cell}/turn", RUNNERS, self.turn, None),
            Verb(
                "POST", "/access/cells/{cell}/isolate", RUNNERS, self.isolate, Reason, second=True
            ),
            Verb(
                "POST",
                "/access/cells/{cell}/retire",
                RUNNERS,
                self.retire,
                Successor,
                second=True,
            ),
            Verb("POST", "/access/cells/{cell}/move", RUNNERS, self.move, Move),
            Verb("POST", "/access/members", RUNNERS, self.add_member, MemberOrder),
            Verb("POST", "/access/members/{id}/standing", RUNNERS, self.standing, StandingOrder),
            Verb("POST", "/access/devices", RUNNERS, self.add_device, DeviceOrder),
            Verb("POST", "/access/devices/{id}/revoke", RUNNERS, self.revoke_device, None),
            Verb("POST", "/access/devices/{id}/move", RUNNERS, self.move_device, Move),
            Verb("POST", "/access/devices/{id}/token", RUNNERS, self.new_token, None),
            Verb(
                "POST",
                "/access/cells/{cell}/regenerate",
                RUNNERS,
                self.regenerate,
                Regenerate,
                second=True,
            ),
            Verb("POST", "/access/nodes/{name}/drain", RUNNERS, self.drain, Reason),
            Verb("PUT", "/access/policies/{core}", RUNNERS, self.policy, ExitPolicy),
        )

    async def state(self, _asked: Asked, _body: Any) -> AccessState:
        return state_of(self._access)

    async def create_cell(self, _asked: Asked, body: CellOrder) -> Cell:
        return await self._access.create_cell(body.id, body.domain, body.core_domain)

    async def turn(self, asked: Asked, _body: Any) -> Cell:
        return await self._access.turn_cell(asked.path_params["cell"])

    async def isolate(self, asked: Asked, body: Reason) -> Cell:
        return await self._access.isolate(asked.path_params["cell"], body.reason)

    async def retire(self, asked: Asked, body: Successor) -> Cell:
        return await self._access.retire_cell(asked.path_params["cell"], body.successor)

    async def move(self, asked: Asked, body: Move) -> Moved:
        source = asked.path_params["cell"]
        return Moved(await self._access.move_devices(source, body.target, body.count))

    async def regenerate(self, asked: Asked, body: Regenerate) -> Cell:
        cell = asked.path_params["cell"]
        return await self._access.regenerate(
            cell, body.successor, body.domain, body.core_domain, body.reserve
        )

    async def drain(self, asked: Asked, body: Reason) -> Acknowledged:
        name = asked.path_params["name"]
        await self._drain(name, body.reason)
        return Acknowledged(name)

    async def add_member(self, _asked: Asked, body: MemberOrder) -> Member:
        return await self._access.add_member(
            owner=body.owner,
            quota_bytes=body.quota_bytes,
            expires_at=body.expires_at,
            devices_max=body.devices_max,
            contact=body.contact,
        )

    async def standing(self, asked: Asked, body: StandingOrder) -> Acknowledged:
        id = asked.path_params["id"]
        await self._access.set_standing(id, body.standing)
        return Acknowledged(id)

    async def add_device(self, _asked: Asked, body: DeviceOrder) -> DeviceMade:
        return await self._access.add_device(body.member, body.cell, body.label)

    async def revoke_device(self, asked: Asked, _body: Any) -> Acknowledged:
        id = asked.path_params["id"]
        await self._access.revoke_device(id)
        return Acknowledged(id)

    async def move_device(self, asked: Asked, body: Move) -> Moved:
        await self._access.move_device(asked.path_params["id"], body.target)
        return Moved(1)

    async def new_token(self, asked: Asked, _body: Any) -> DeviceMade:
        return await self._access.new_token(asked.path_params["id"])

    async def policy(self, asked: Asked, body: ExitPolicy) -> ExitPolicy:
        return await self._access.set_policy(asked.path_params["core"], body)
