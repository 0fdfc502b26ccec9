"""The page as HQ's process takes it: routes for its loopback port, a task, a way to get a link."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.routing import Route

from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.web.board import Board
from holdfast.web.fleet import routes
from holdfast.web.login import Login
from holdfast.web.source import FleetPages, FleetSource

Mounting = tuple[list[Route], Callable[[], Awaitable[None]], Callable[[], str]]
"""(routes, run, link), in the order of `hq.main.Mounted`."""


class Host(FleetSource, Protocol):
    """A headquarters process that serves on loopback."""

    @property
    def clock(self) -> Clock: ...

    @property
    def admin_address(self) -> str:
        """`host:port`, once it serves."""
        ...


def mount(host: Host, entropy: Entropy, *, command: str = "") -> Mounting:
    """The fleet page of `host`. `command` is what a person types to get another login link.

    `run` must run for as long as the routes are served; cancelling it ends every open stream.
    """
    login = Login(host.clock, entropy, command=command)
    board = Board(FleetPages(host, host.clock), host.clock)
    return routes(board, login), board.run, lambda: login.link(f"http://{host.admin_address}")
