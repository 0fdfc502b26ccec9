"""`holdfast bot`: the Telegram bot of members and operators, beside a headquarters."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated, Final, TypeVar

import cyclopts

from holdfast.bot.contacts import Contacts
from holdfast.bot.desk import Desk
from holdfast.cli.output import emit
from holdfast.cli.service import start_service_log
from holdfast.errors import HoldfastError, OperationFault, UsageError
from holdfast.hq.config import load_config
from holdfast.hq.home import HqHome
from holdfast.rim.clock import Clock, SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.log import LogForm
from holdfast.rim.loopback import LoopbackClient

T = TypeVar("T")
_log = logging.getLogger("holdfast.bot")
app = cyclopts.App(name="bot", help_format="plaintext")
Hq = Annotated[Path, cyclopts.Parameter(name="--dir", help="Directory of the headquarters.")]
LOOK_S: Final = 30.0
"""Between looks for what members and operators should hear of."""
API: Final = "https://api.telegram.org"


@app.command
def serve(*, dir: Hq, token_file: Path, api: str = API, log: LogForm | None = None) -> None:
    """Answer members and operators on Telegram, until stopped.

    Parameters
    ----------
    token_file
        The bot's token, as @BotFather gives it, in a file that only you can read.
    api
        Where the Bot API is; another for a local Bot API server.
    log
        json or text; by default text on a terminal and json elsewhere.
    """
    start_service_log("info", log, "bot")
    asyncio.run(run(dir, token_file, api))


class _Admin:
    """The admin port of an HQ that may be restarted: its file is read at every call."""

    def __init__(self, home: HqHome, clock: Clock) -> None:
        self._home = home
        self._clock = clock

    async def call(self, method: str, path: str, body: object | None, reply: type[T], /) -> T:
        """As LoopbackClient's. Raises OperationFault also when no HQ runs."""
        try:
            about = self._home.admin()
        except UsageError as error:
            raise OperationFault(str(error)) from error
        return await LoopbackClient(about.address, about.key, self._clock).call(
            method, path, body, reply
        )


async def run(home: Path, token_file: Path, api: str, look_s: float = LOOK_S) -> None:
    """Until cancelled. Raises UsageError, OperationFault."""
    try:
        from holdfast.rim.telegram import Telegram, read_token
    except ImportError as error:
        raise UsageError("the bot needs an extra: pip install 'holdfast[bot]'") from error
    base_url = load_config(home).subscriptions_url
    if not base_url:
        raise UsageError(f"set subscriptions_url in {home}/hq.json: members get links to it")
    clock, entropy = SystemClock(), SystemEntropy()
    admin, contacts = _Admin(HqHome(home), clock), Contacts(home / "bot", entropy)
    async with Telegram(read_token(token_file), clock, api) as telegram:
        desk = Desk(admin, contacts, telegram.send, base_url, clock, entropy)
        looking = asyncio.create_task(_look_for_ever(desk, clock, look_s))
        try:
            async for message in telegram.messages():
                try:
                    await desk.take(message)
                except OperationFault as fault:
                    _log.warning("an answer was not delivered: %s", fault)
        finally:
            looking.cancel()


async def _look_for_ever(desk: Desk, clock: Clock, look_s: float) -> None:
    while True:
        try:
            await desk.look()
        except HoldfastError as fault:
            _log.warning("no look at headquarters: %s", fault)
        await clock.sleep_real(look_s)


@app.command
def operator(telegram_id: int, *, dir: Hq, remove: bool = False, json: bool = False) -> None:
    """Let a Telegram user approve requests and see the cells; stop the bot first.

    Parameters
    ----------
    telegram_id
        The number of the user; only an HMAC of it is kept.
    remove
        Take it back.
    """
    contacts = Contacts(dir / "bot", SystemEntropy())
    kept = set(contacts.book.operators) - {contacts.contact(telegram_id)}
    if not remove:
        kept.add(contacts.contact(telegram_id))
    contacts.change(operators=tuple(sorted(kept)))
    emit({"operators": len(kept)}, as_json=json, text=f"{len(kept)} operators")
