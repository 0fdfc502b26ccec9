"""`holdfast hq serve` (`cli.plain`): a headquarters, until it is stopped, and its web page."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import uvloop

from holdfast.cli.output import emit
from holdfast.cli.service import clock_of, start_service_log, until_stopped
from holdfast.hq.access_admin import state_of
from holdfast.hq.home import at
from holdfast.hq.main import Headquarters, Mounted
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.files import lock_directory
from holdfast.rim.log import LogForm
from holdfast.rim.process import raise_descriptor_limit
from holdfast.web import access
from holdfast.web.board import Board
from holdfast.web.fleet import routes
from holdfast.web.login import Login
from holdfast.web.source import FleetPages

VARIABLES: Final[dict[str, str]] = {}


def serve(
    *, dir: Path, page: bool = True, log_level: str = "info", log: LogForm | None = None
) -> None:
    """Serve until stopped.

    Parameters
    ----------
    page
        Whether the admin port serves the web page.
    log_level
        debug, info, warning or error.
    log
        json or text; by default text on a terminal and json elsewhere.
    """
    hq = at(dir)
    config = hq.config()
    start_service_log(log_level, log, "hq", config.domain)
    raise_descriptor_limit()
    with lock_directory(hq.directory, "a headquarters"):
        clock = clock_of(config.time_scale)
        headquarters = Headquarters(hq, clock, SystemEntropy(), mount=web_page if page else None)
        uvloop.run(until_stopped(_serve(headquarters)))


async def _serve(hq: Headquarters) -> None:
    try:
        await hq.start()
        where = ", ".join(hq.parts.api_addresses)
        emit(None, as_json=False, text=f"headquarters serves at {where}; admin {hq.admin_address}")
        await hq.run()
    finally:
        await hq.stop()


def web_page(hq: Headquarters) -> Mounted:
    """The fleet page beside the admin routes, with its own login."""
    login = Login(hq.clock, SystemEntropy(), command=f"holdfast hq page --dir {hq.home.directory}")
    board = Board(FleetPages(hq, hq.clock, hq.alerts), hq.clock)

    async def look() -> access.Shown:
        tokens = tuple(row for _, row in await hq.parts.tokens.items() if not row.used_by)
        return access.Shown(state_of(hq.parts.access), hq.view(), tokens, hq.clock.wall())

    return Mounted(
        routes=[*routes(board, login), *access.routes(look, login)],
        run=board.run,
        link=lambda: login.link(f"http://{hq.admin_address}"),
    )
