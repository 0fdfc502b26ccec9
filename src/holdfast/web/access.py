"""The access layer's page for operators: cells, their entries and cores, members, open tokens.

| method and path   | who     | answer                                         |
|-------------------|---------|------------------------------------------------|
| GET  /access      | session | the page                                       |
| GET  /access/live | session | the part of it that lives                      |

It looks and changes nothing; beside each thing stands the verb that changes it. Members have no
names here: the registry keeps none. What a person gets of their own subscription is another page
(`hq.subscription_page`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from holdfast.hq.access_admin import AccessState
from holdfast.hq.brain_view import FleetView, ServerView
from holdfast.logic.access.model import CellState, Core, Device, Entry, Member, Standing
from holdfast.logic.access.subscription import Usage
from holdfast.logic.fleet.rows import TokenRow
from holdfast.logic.fleet.state import DOWN
from holdfast.web import render
from holdfast.web.guard import guarded
from holdfast.web.login import Login
from holdfast.web.words import size

MEMBERS_SHOWN_MAX: Final = 200
"""The page is for looking; `holdfast access members` lists them all."""
ID_LETTERS: Final = 8
NO_LIMIT: Final = "no limit"


class Shown(msgspec.Struct, frozen=True):
    """What the page is made of: the access layer, the fleet, the tokens nobody has used."""

    access: AccessState
    fleet: FleetView
    tokens: tuple[TokenRow, ...]
    at: float


class NodeLine(msgspec.Struct, frozen=True):
    """An entry or a core. `state` is a word, `tier` how headquarters sees its machine."""

    name: str
    role: str
    owner: str
    region: str
    state: str
    tier: str
    sessions: int
    load: str
    reserve: str
    total: str


class CellCard(msgspec.Struct, frozen=True):
    """A cell. `risk` is why somebody should look; empty when nobody need."""

    id: str
    domain: str
    state: str
    risk: str
    devices: int
    nodes: tuple[NodeLine, ...]


class MemberLine(msgspec.Struct, frozen=True):
    """A member; `share` of the quota is between 0 and 1, or below 0 without a quota."""

    id: str
    standing: str
    owner: str
    devices: str
    used: str
    share: float
    expires_at: int


class AccessPage(msgspec.Struct, frozen=True):
    """The page, in its own words."""

    at: float
    title: str
    cells: tuple[CellCard, ...]
    members: tuple[MemberLine, ...]
    members_left: int
    tokens: tuple[TokenRow, ...]


Look = Callable[[], Awaitable[Shown]]


def routes(look: Look, login: Login) -> list[Route]:
    """Both routes, behind the door of the fleet page."""

    def route(path: str, template: str) -> Route:
        async def endpoint(request: Request) -> Response:
            page = page_of(await look())
            return HTMLResponse(render.page(template, page=page))

        return Route(path, guarded(endpoint, login), methods=["GET"])

    return [route("/access", "access.html"), route("/access/live", "access_live.html")]


def page_of(shown: Shown) -> AccessPage:
    """What a person reads."""
    state = shown.access
    servers = {server.name: server for server in shown.fleet.servers}
    cells = tuple(_cell(cell.id, state, servers) for cell in state.cells)
    members = sorted(state.members, key=lambda member: -_used(state, member).total)
    lines = tuple(_member(member, state) for member in members[:MEMBERS_SHOWN_MAX])
    return AccessPage(
        at=shown.at,
        title=_title(cells),
        cells=cells,
        members=lines,
        members_left=len(members) - len(lines),
        tokens=tuple(row for row in shown.tokens if row.cell and row.expires_at > shown.at),
    )


def _title(cells: Iterable[CellCard]) -> str:
    """The worst that is true, in one sentence."""
    troubled = [cell.id for cell in cells if cell.risk]
    if troubled:
        return f"Look at {', '.join(troubled)}"
    return "Every cell is well" if cells else "There is no cell yet"


def _cell(id: str, state: AccessState, servers: dict[str, ServerView]) -> CellCard:
    cell = next(cell for cell in state.cells if cell.id == id)
    every: tuple[Entry | Core, ...] = (*state.entries, *state.cores)
    here = [node for node in every if node.cell == id]
    nodes = [_node(node, servers) for node in sorted(here, key=lambda node: node.name)]
    return CellCard(
        id=id,
        domain=cell.domain,
        state=cell.state.value,
        risk=_risk(cell.state, state.verdicts.get(id, ""), nodes),
        devices=sum(device.cell == id for device in _living(state.devices)),
        nodes=tuple(nodes),
    )


def _risk(state: CellState, verdict: str, nodes: list[NodeLine]) -> str:
    if state is CellState.RETIRED:
        return ""
    if state is CellState.ISOLATED:
        return "isolated: its devices move to their reserve"
    if verdict not in ("", "fine"):
        return f"{verdict}: clients vanish while its machines are well"
    for role in ("entry", "core"):
        if not any(node.role == role and node.state == "serves" for node in nodes):
            return f"no {role} serves"
    return ""


def _node(node: Entry | Core, servers: dict[str, ServerView]) -> NodeLine:
    server = servers.get(node.name)
    state = "drains" if node.draining else "serves"
    if server is None or server.silent or server.tier in DOWN:
        state = "silent"
    core = node if isinstance(node, Core) else None
    return NodeLine(
        name=node.name,
        role="core" if core else "entry",
        owner=node.owner,
        region=node.region,
        state=state,
        tier=server.tier.value if server else "",
        sessions=server.load.sessions if server else 0,
        load=f"{core.load:.0%}" if core else "",
        reserve=_of(core.reserve_used, core.policy.reserve_bytes) if core else "",
        total=_of(core.total_used, core.policy.monthly_bytes) if core else "",
    )


def _of(used: int, most: int) -> str:
    return f"{size(used)} of {size(most) if most else NO_LIMIT}"


def _member(member: Member, state: AccessState) -> MemberLine:
    used = _used(state, member).total
    devices = sum(device.member == member.id for device in _living(state.devices))
    return MemberLine(
        id=member.id[:ID_LETTERS],
        standing=member.standing.value,
        owner=member.owner,
        devices=f"{devices} of {member.devices_max}",
        used=_of(used, member.quota_bytes),
        share=used / member.quota_bytes if member.quota_bytes else -1.0,
        expires_at=member.expires_at,
    )


def _used(state: AccessState, member: Member) -> Usage:
    return state.usage.get(member.id, Usage())


def _living(devices: Iterable[Device]) -> Iterable[Device]:
    return (device for device in devices if device.standing is not Standing.REVOKED)
