"""The door of the web page: who may ask, and what every answer carries.

* `Host` must be a loopback name, or a page of the internet whose name was pointed at 127.0.0.1
  could read ours (DNS rebinding): 421.
* `Origin`, where a browser sends one, must be our own; `Sec-Fetch-Site` must not say that another
  site or another port asks for anything but a page to show: 403.
* Pages of the fleet need a session: 401.
* No answer may be framed, cached, sniffed or add anything from elsewhere: one strict policy.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from holdfast.web.login import Login
from holdfast.web.render import notice

Endpoint = Callable[[Request], Awaitable[Response]]

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with "no-referrer" our own forms would say Origin: null
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def is_loopback(authority: str) -> bool:
    """Whether a Host header names this machine: `localhost`, 127/8 or ::1, with or without port."""
    host, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        host, port = authority, ""
    if port and not (port.isascii() and port.isdigit()):
        return False
    if host.lower() == "localhost":
        return True
    if host.startswith("[") and host.endswith("]"):
        return host == "[::1]"
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.version == 4 and address.is_loopback


def is_ours(request: Request) -> bool:
    """Whether the request comes from our own pages, from the address bar, or from no browser."""
    headers = request.headers
    origin = headers.get("origin")
    if origin is not None:
        return origin == f"{request.url.scheme}://{headers.get('host', '')}"
    if request.method not in {"GET", "HEAD"}:
        return "sec-fetch-site" not in headers  # browsers add Origin to every other method
    if headers.get("sec-fetch-site", "none") in {"none", "same-origin"}:
        return True
    return headers.get("sec-fetch-mode") == "navigate"


def cookie_name(request: Request) -> str:
    """One name for each port: cookies know hosts only, and two networks may share one machine."""
    port = request.url.port
    return f"holdfast-{port}" if port else "holdfast"


def session(request: Request) -> str:
    """The session token the request carries; empty when none."""
    return request.cookies.get(cookie_name(request), "")


def guarded(endpoint: Endpoint, login: Login, *, public: bool = False) -> Endpoint:
    """`endpoint` behind the door. `public` answers need no session, but still a good Host."""

    async def ask(request: Request) -> Response:
        response = await _refusal(request, login, public) or await endpoint(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("cache-control", "no-store")
        return response

    return ask


async def _refusal(request: Request, login: Login, public: bool) -> Response | None:
    if not is_loopback(request.headers.get("host", "")):
        return notice(421, "Not this name", "This page answers on loopback addresses only.")
    if not is_ours(request):
        return notice(403, "Refused", "Another site asked for this page on your behalf.")
    if not public and not login.holds(session(request)):
        return signed_out(login, 401)
    return None


def signed_out(login: Login, status: int, title: str = "You are not signed in") -> Response:
    """Says how to get in."""
    text = "Open the login link that Holdfast printed when it started. "
    text += "A link works once, within ten minutes."
    return notice(status, title, text, login.command)
