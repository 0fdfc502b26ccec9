"""`holdfast access`: cells, members and their devices; and the roles that an agent runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import cyclopts
import uvloop

from holdfast.access.main import serve as serve_role
from holdfast.access.role import AccessConfig
from holdfast.cli.hq_call import call_hq, part
from holdfast.cli.output import emit
from holdfast.cli.service import clock_of, place_of, start_service_log
from holdfast.hq.access import DeviceMade
from holdfast.hq.access_admin import (
    AccessState,
    Acknowledged,
    CellOrder,
    DeviceOrder,
    MemberOrder,
    Move,
    Moved,
    Reason,
    Regenerate,
    StandingOrder,
)
from holdfast.limits.access import RESERVE_BYTES_DEFAULT
from holdfast.logic.access.model import Cell, Device, ExitPolicy, Member, Standing
from holdfast.logic.access.subscription import Usage
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import SystemClock
from holdfast.wire.codec import Message

T = TypeVar("T")


class MemberList(Message):
    """Members, their devices, and bytes by member."""

    members: tuple[Member, ...]
    devices: tuple[Device, ...]
    usage: dict[str, Usage]


app = cyclopts.App(name="access", help_format="plaintext")


@app.command(show=False)
def serve(
    *,
    state: Annotated[Path, cyclopts.Parameter(name="--dir")],
    listen: str,
    role: Role,
    region: str,
    chain: Path,
    key: Path,
    identity: Path,
    roots: Path,
    name: str = "",
    network: str = "",
    time_scale: float = 1.0,
) -> None:
    """Serve as an entry or a core, told what to do over stdin and stdout by an agent."""
    clock_of(time_scale)
    start_service_log("info", None, role, name)
    del identity  # what all roles are given; this one signs nothing
    host, port, network_id = place_of(listen, network)
    config = AccessConfig(
        state=state,
        host=host,
        port=port,
        role=role,
        name=name,
        region=region,
        network=network_id,
        chain=chain,
        key=key,
        roots=roots,
        time_scale=time_scale,
    )
    uvloop.run(serve_role(config))


# --- Operators -----------------------------------------------------------------------------------
Hq = Annotated[Path, cyclopts.Parameter(name="--dir", help="Directory of the headquarters.")]
Json = Annotated[bool, cyclopts.Parameter(help="One JSON object as the last line.", negative="")]
cell = cyclopts.App(name="cell", help="Cells: names, paths, isolation.")
member = cyclopts.App(name="member", help="Members and their devices.")
core = cyclopts.App(name="core", help="What a core's owner allows.")
app.command(cell)
app.command(member)
app.command(core)


def _call(home: Path, method: str, path: str, body: object, reply: type[T]) -> T:
    return call_hq(home, method, "/access" + path, body, reply)


@app.command
def status(*, dir: Hq, json: Json = False) -> None:
    """Cells, entries, cores, members and their usage."""
    state = _call(dir, "GET", "", None, AccessState)
    lines = [
        f"{item.id:12} {item.state.value:9} {item.domain}  epochs {len(item.epochs)}"
        f"  {state.verdicts.get(item.id, '')}"
        for item in state.cells
    ]
    lines += [f"{item.name:16} {item.cell:12} {item.owner}" for item in state.entries]
    lines += [
        f"{item.name:16} {item.cell:12} {item.owner}  reserve used {item.reserve_used}"
        for item in state.cores
    ]
    lines.append(f"{len(state.members)} members, {len(state.devices)} devices")
    emit(state, as_json=json, text="\n".join(lines))


@cell.command(name="create")
def cell_create(id: str, *, dir: Hq, domain: str, core_domain: str, json: Json = False) -> None:
    """Make a cell; then admit its nodes: holdfast hq token create --role entry --cell ID.

    Parameters
    ----------
    domain
        What clients send as SNI. Under the network's domain nodes' own certificates serve it.
    core_domain
        What entries send as SNI to cores.
    """
    made = _call(dir, "POST", "/cells", CellOrder(id, domain, core_domain), Cell)
    emit(made, as_json=json, text=f"cell {made.id}: {made.domain}")


@cell.command(name="turn")
def cell_turn(id: str, *, dir: Hq, json: Json = False) -> None:
    """Open the next path epoch now; older ones stay served as long as somebody may hold them."""
    made = _call(dir, "POST", f"/cells/{part(id)}/turn", None, Cell)
    emit(made, as_json=json, text=f"cell {id} is at epoch {made.epochs[-1].number}")


@cell.command(name="isolate")
def cell_isolate(id: str, *, dir: Hq, reason: str, json: Json = False) -> None:
    """Send nobody to a cell any more: it is compromised."""
    made = _call(dir, "POST", f"/cells/{part(id)}/isolate", Reason(reason), Cell)
    emit(made, as_json=json, text=f"cell {id} is {made.state.value}")


@cell.command(name="regenerate")
def cell_regenerate(
    id: str,
    *,
    dir: Hq,
    successor: str,
    domain: str,
    core_domain: str,
    reserve: str,
    json: Json = False,
) -> None:
    """Give a compromised cell up and make another in its place.

    Its devices move to the reserve cell at once, with new credentials. Revoke its nodes yourself,
    admit new ones to the successor, then move the devices there.

    Parameters
    ----------
    successor
        The new cell's name.
    domain
        What its clients send as SNI: another name than before.
    core_domain
        What its entries send as SNI.
    reserve
        The cell that takes the devices meanwhile.
    """
    order = Regenerate(successor, domain, core_domain, reserve)
    made = _call(dir, "POST", f"/cells/{part(id)}/regenerate", order, Cell)
    emit(made, as_json=json, text=f"cell {id} is retired; {made.id} takes its place")


@app.command
def drain(name: str, *, dir: Hq, reason: str = "planned rotation", json: Json = False) -> None:
    """Take an entry or a core out of service, once nobody needs it any more."""
    done = _call(dir, "POST", f"/nodes/{part(name)}/drain", Reason(reason), Acknowledged)
    emit(done, as_json=json, text=f"{done.subject} drains")


@cell.command(name="move")
def cell_move(id: str, *, dir: Hq, to: str, count: int = 10_000, json: Json = False) -> None:
    """Move devices to another cell; they get new credentials and follow at their next refresh."""
    moved = _call(dir, "POST", f"/cells/{part(id)}/move", Move(to, count), Moved)
    emit(moved, as_json=json, text=f"moved {moved.moved} devices from {id} to {to}")


@member.command(name="add")
def member_add(
    *, dir: Hq, owner: str = "", quota_gb: float = 0, days: float = 0, json: Json = False
) -> None:
    """Register a member under a random id.

    Parameters
    ----------
    owner
        Under which their machines joined; their cores serve them first.
    quota_gb
        What they may use; 0 for no limit.
    days
        How long they are served; 0 for ever.
    """
    expires = int(SystemClock().wall() + days * 86_400) if days else 0
    order = MemberOrder(owner, int(quota_gb * 1e9), expires)
    made = _call(dir, "POST", "/members", order, Member)
    emit(made, as_json=json, text=made.id)


@member.command(name="device")
def member_device(id: str, *, dir: Hq, cell: str, label: str = "", json: Json = False) -> None:
    """Give a member one more device; prints its subscription token, once."""
    made = _call(dir, "POST", "/devices", DeviceOrder(id, cell, label), DeviceMade)
    emit(made, as_json=json, text=made.token)


@member.command(name="revoke-device")
def member_revoke_device(device: str, *, dir: Hq, json: Json = False) -> None:
    """End a device's service for good; its open connections are cut."""
    done = _call(dir, "POST", f"/devices/{part(device)}/revoke", None, Acknowledged)
    emit(done, as_json=json, text=f"revoked {done.subject}")


@member.command(name="token")
def member_token(device: str, *, dir: Hq, json: Json = False) -> None:
    """Replace a device's lost subscription; prints the new token, once. The old one, and the
    servers that were got with it, work no more."""
    made = _call(dir, "POST", f"/devices/{part(device)}/token", None, DeviceMade)
    emit(made, as_json=json, text=made.token)


@member.command(name="list")
def member_list(*, dir: Hq, json: Json = False) -> None:
    """Members with what they have used, and their devices with when each last refreshed."""
    state = _call(dir, "GET", "", None, AccessState)
    lines = []
    for item in state.members:
        used, quota = state.usage.get(item.id, Usage()).total, item.quota_bytes or "no limit"
        lines.append(f"{item.id}  {item.standing.value:9} {item.owner:12} {used} of {quota} bytes")
        lines += [
            f"  {made.id}  {made.standing.value:9} {made.cell:8} {made.label}"
            for made in state.devices
            if made.member == item.id
        ]
    known = MemberList(state.members, state.devices, state.usage)
    emit(known, as_json=json, text="\n".join(lines) or "no members yet")


@member.command(name="revoke")
def member_revoke(id: str, *, dir: Hq, json: Json = False) -> None:
    """End the service of a member and of all their devices for good."""
    _stand(id, dir, Standing.REVOKED, json)


@member.command(name="suspend")
def member_suspend(id: str, *, dir: Hq, json: Json = False) -> None:
    """Stop serving a member until `member resume`."""
    _stand(id, dir, Standing.SUSPENDED, json)


@member.command(name="resume")
def member_resume(id: str, *, dir: Hq, json: Json = False) -> None:
    """Serve a suspended member again."""
    _stand(id, dir, Standing.ACTIVE, json)


def _stand(id: str, dir: Path, standing: Standing, json: bool) -> None:
    path, order = f"/members/{part(id)}/standing", StandingOrder(standing)
    done = _call(dir, "POST", path, order, Acknowledged)
    emit(done, as_json=json, text=f"{done.subject} is {standing.value}")


@core.command(name="policy")
def core_policy(
    name: str,
    *,
    dir: Hq,
    ports: tuple[int, ...] = (),
    ports_denied: tuple[int, ...] = (25, 465, 587),
    networks_denied: tuple[str, ...] = (),
    domains_denied: tuple[str, ...] = (),
    reserve_gb: float = RESERVE_BYTES_DEFAULT / 1e9,
    monthly_gb: float = 0,
    mbit_s: float = 0,
    json: Json = False,
) -> None:
    """Set what a core's owner allows. Private ranges stay closed whatever is said here.

    Parameters
    ----------
    ports
        Only these; all but the denied ones when empty.
    reserve_gb
        What others may use in a month; 0 for nothing.
    monthly_gb
        What everybody together may use in a month; 0 for no limit.
    mbit_s
        How fast others may be; 0 for no limit.
    """
    policy = ExitPolicy(
        ports=ports,
        ports_denied=ports_denied,
        networks_denied=networks_denied,
        domains_denied=domains_denied,
        bytes_per_s_max=int(mbit_s * 125_000),
        reserve=reserve_gb > 0,
        reserve_bytes=int(reserve_gb * 1e9),
        monthly_bytes=int(monthly_gb * 1e9),
    )
    found = _call(dir, "PUT", f"/policies/{part(name)}", policy, ExitPolicy)
    emit(found, as_json=json, text=f"{name}: reserve {found.reserve_bytes} bytes a month")
