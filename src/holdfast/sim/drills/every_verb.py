"""Every change that the operator's table knows, asked for through one core after another.

A step is a verb, what fills its path and its body; what it answers may fill later ones. Changes
that need two persons are asked for by one and agreed to by another, through another core. Some
cannot be done on a ground without hosting providers; those are marked `refused`, and what is
compared is the refusal.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import msgspec

from holdfast.logic.fleet.model import Role
from holdfast.sim.access.ground import DOMAIN
from holdfast.sim.access.shared import KIND
from holdfast.wire.records import Staple
from holdfast.wire.signed import Signed

Asked = Callable[["Step"], Awaitable[dict[str, Any]]]
NOBODY: Final = "nobody"
"""A hash, serial or name of no one."""
NO_STAPLE: Final = Staple(Signed(b"no release", b"k" * 32, b"s" * 64), b"no certificate")


class Step(msgspec.Struct, frozen=True):
    """One change. `path` is the verb's path filled in."""

    verb: str
    path: str
    body: object = None
    refused: bool = False


def _cell(id: str) -> Step:
    body = {"id": id, "domain": f"{id}.{DOMAIN}", "core_domain": f"{id}-core.{DOMAIN}"}
    return Step("POST /access/cells", "/access/cells", body)


def _device(member: str, cell: str) -> Step:
    body = {"member": member, "cell": cell, "label": ""}
    return Step("POST /access/devices", "/access/devices", body)


def _of_device(device: str, what: str, body: object = None) -> Step:
    return Step(f"POST /access/devices/{{id}}/{what}", f"/access/devices/{device}/{what}", body)


def _of_cell(cell: str, what: str, body: object = None) -> Step:
    return Step(f"POST /access/cells/{{cell}}/{what}", f"/access/cells/{cell}/{what}", body)


async def members(ask: Asked) -> str:
    """A member with devices, moved, renewed, suspended; the member's id."""
    order: dict[str, Any] = {"owner": "ada", "quota_bytes": 0, "expires_at": 0, "devices_max": 9}
    member = (await ask(Step("POST /access/members", "/access/members", order)))["id"]
    for cell in ("c2", "c3", "c4"):
        await ask(_cell(cell))
    device = (await ask(_device(member, "c1")))["device"]
    await ask(_of_device(device, "token"))
    await ask(_of_device(device, "move", {"target": "c2", "count": 1}))
    await ask(_of_cell("c2", "move", {"target": "c1", "count": 5}))
    await ask(_of_device((await ask(_device(member, "c1")))["device"], "revoke"))
    standing = {"standing": "suspended"}
    path = f"/access/members/{member}/standing"
    await ask(Step("POST /access/members/{id}/standing", path, standing))
    await ask(Step("POST /access/members/{id}/standing", path, {"standing": "active"}))
    return str(member)


async def cells(ask: Asked, core: str, entry: str) -> None:
    """Cells turned, given up and made anew; a core's policy; an entry that drains."""
    await ask(_of_cell("c1", "turn"))
    await ask(_of_cell("c4", "isolate", {"reason": "drill"}))
    await ask(_of_cell("c3", "retire", {"successor": ""}))
    anew = {"successor": "c5", "domain": f"c5.{DOMAIN}", "core_domain": f"c5-core.{DOMAIN}"}
    await ask(_of_cell("c2", "regenerate", {**anew, "reserve": "c1"}))
    policy = {"reserve_bytes": 1 << 30}
    await ask(Step("PUT /access/policies/{core}", f"/access/policies/{core}", policy))
    drain = Step("POST /access/nodes/{name}/drain", f"/access/nodes/{entry}/drain", {"reason": "x"})
    await ask(drain)


async def trust(ask: Asked, applications: AsyncIterator[str]) -> None:
    """Tokens, grants, a revocation, applications answered."""
    order = {"role": Role.RELAY, "region": "eu", "owner": "ada"}
    made = await ask(Step("POST /tokens", "/tokens", order))
    await ask(Step("DELETE /tokens/{hash}", f"/tokens/{made['hash']}"))
    await ask(Step("POST /grants", "/grants", {"kind": KIND, "tickets": 3, "member": "ada"}))
    await ask(Step("POST /revoke", "/revoke", {"reason": "drill", "key": "ab" * 32}))
    for answer in ("approve", "decline"):
        id = await anext(applications)
        verb = f"POST /applications/{{id}}/{answer}"
        await ask(Step(verb, f"/applications/{id}/{answer}", {"reason": "drill"}))


async def persons(ask: Asked) -> None:
    """An operator who comes and goes."""
    await ask(Step("POST /operators", "/operators", {"name": "bob", "role": "auditor"}))
    await ask(Step("DELETE /operators/{name}", "/operators/bob"))
    await ask(Step("POST /login-link", "/login-link"))


async def pool(ask: Asked) -> None:
    """What needs hosting providers and servers of the pool."""
    await ask(Step("POST /confirm-unfreeze", "/confirm-unfreeze", refused=True))
    await ask(Step("POST /launch", "/launch", {"regions": ["eu"]}, refused=True))
    path = f"/servers/{NOBODY}/drain"
    await ask(Step("POST /servers/{name}/drain", path, {"reason": "drill"}, refused=True))
    many = {"names": [NOBODY], "reason": "drill"}
    await ask(Step("POST /drain", "/drain", many, refused=True))


async def fleet(ask: Asked) -> None:
    """Standing orders, keys, releases and alerts; what has nobody to work on is refused alike."""
    await ask(Step("POST /standby", "/standby", {"per_place": 0}))
    await ask(Step("POST /rebalance", "/rebalance", {"moves_per_min": 6}))
    await ask(Step("PUT /rotation", "/rotation", {"every_days": 30.0, "at_once": 1}))
    await ask(Step("DELETE /rotation", "/rotation"))
    many, every = {"names": [NOBODY]}, {"every_days": 9}
    nothing: tuple[tuple[str, str, str, object], ...] = (
        ("DELETE", "/rebalance", "/rebalance", None),
        ("POST", "/servers/{name}/rotate", f"/servers/{NOBODY}/rotate", None),
        ("POST", "/rotate", "/rotate", many),
        ("POST", "/credentials/{name}/stage", f"/credentials/{NOBODY}/stage", {"key": "k" * 40}),
        ("POST", "/credentials/{name}/take", f"/credentials/{NOBODY}/take", {"fingerprint": "ab"}),
        (
            "PUT",
            "/credentials/{name}/schedule",
            f"/credentials/{NOBODY}/schedule",
            every,
        ),
        ("POST", "/releases", "/releases", {"staple": NO_STAPLE}),
        ("POST", "/upgrade", "/upgrade", {"release": NOBODY}),
        ("POST", "/upgrade/halt", "/upgrade/halt", {"reason": "drill"}),
        ("POST", "/upgrade/resume", "/upgrade/resume", {"reason": "drill"}),
        ("POST", "/upgrade/back", "/upgrade/back", {"reason": "drill"}),
        ("POST", "/servers/{name}/defer", f"/servers/{NOBODY}/defer", {"days": 3.0}),
        ("POST", "/alerts/acknowledge", "/alerts/acknowledge", {"id": NOBODY}),
    )
    for method, verb, path, body in nothing:
        await ask(Step(f"{method} {verb}", path, body, refused=True))
