"""The Telegram Bot API through aiogram: messages in, messages out, and nothing said of the token.

aiogram's session puts the token into every URL, and errors of the client below it may quote that
URL; so whatever goes wrong leaves here as an error of ours, without its cause and with the token
blanked out. Long polling, as a bot behind NAT needs; an update counts as seen when the next poll
confirms it, so one that was being answered when the process died comes again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Final

import aiohttp
import msgspec
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import (
    AiogramError,
    TelegramForbiddenError,
    TelegramNetworkError,
    TelegramRetryAfter,
    TelegramServerError,
    TelegramUnauthorizedError,
)
from aiogram.types import LinkPreviewOptions

from holdfast.errors import HoldfastError, OperationFault, UsageError
from holdfast.rim.clock import Clock
from holdfast.rim.files import read_file

API: Final = "https://api.telegram.org"
POLL_S: Final = 25
BACKOFF_S_MIN: Final = 0.5
BACKOFF_S_MAX: Final = 60.0
SEND_BACKOFF_S_MAX: Final = 4.0
"""An answer that cannot be sent for seven seconds is given up: its asker asks again."""
TEXT_LETTERS_MAX: Final = 4_096
"""The Bot API's own limit of one message."""


class Incoming(msgspec.Struct, frozen=True):
    """A message somebody wrote to the bot. `user` and `chat` are Telegram's ids."""

    user: int
    chat: int
    private: bool
    text: str
    language: str


def read_token(path: Path) -> str:
    """The bot's token from a file of its own. Raises UsageError."""
    data = read_file(path)
    token = data.decode(errors="replace").strip() if data is not None else ""
    number, _, secret = token.partition(":")
    if not number.isdigit() or len(secret) < 20 or any(c.isspace() for c in token):
        raise UsageError(f"no bot token in {path}: one line as @BotFather gives it")
    return token


class Telegram:
    """One bot. `async with Telegram(token, clock) as telegram`."""

    def __init__(self, token: str, clock: Clock, api: str = API) -> None:
        self._token = token
        self._clock = clock
        session = AiohttpSession(api=TelegramAPIServer.from_base(api))
        self._bot = Bot(token, session=session)

    async def __aenter__(self) -> Telegram:
        """Raises UsageError for a token that Telegram does not know, OperationFault."""
        try:
            await self._bot.get_me()
        except (AiogramError, aiohttp.ClientError) as error:
            fault = self._fault(error)
            await self._bot.session.close()
            raise fault from None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._bot.session.close()

    async def messages(self) -> AsyncIterator[Incoming]:
        """Messages as they come, for ever. Raises UsageError when the token is withdrawn."""
        offset, backoff_s = 0, BACKOFF_S_MIN
        while True:
            try:
                updates = await self._bot.get_updates(
                    offset=offset or None, timeout=POLL_S, allowed_updates=["message"]
                )
            except (AiogramError, aiohttp.ClientError) as error:
                fault = self._fault(error)
                if isinstance(fault, UsageError):
                    raise fault from None
                wait = error.retry_after if isinstance(error, TelegramRetryAfter) else backoff_s
                await self._clock.sleep_real(wait)
                backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)
                continue
            backoff_s = BACKOFF_S_MIN
            for update in updates:
                offset = update.update_id + 1
                message = update.message
                if message is None or message.from_user is None or not message.text:
                    continue
                yield Incoming(
                    user=message.from_user.id,
                    chat=message.chat.id,
                    private=message.chat.type == "private",
                    text=message.text,
                    language=message.from_user.language_code or "",
                )

    async def send(self, chat: int, text: str) -> bool:
        """Write to a chat; whether it arrived. False for one who blocked the bot. Raises
        OperationFault when Telegram is away."""
        for start in range(0, len(text), TEXT_LETTERS_MAX):
            if not await self._send(chat, text[start : start + TEXT_LETTERS_MAX]):
                return False
        return True

    async def _send(self, chat: int, text: str) -> bool:
        backoff_s = BACKOFF_S_MIN
        while True:
            try:
                await self._bot.send_message(
                    chat,
                    text,
                    protect_content=True,
                    link_preview_options=LinkPreviewOptions(is_disabled=True),
                )
                return True
            except TelegramRetryAfter as error:
                await self._clock.sleep_real(error.retry_after)
            except TelegramForbiddenError:
                return False
            except (AiogramError, aiohttp.ClientError) as error:
                fault = self._fault(error)
                if not (isinstance(fault, OperationFault) and fault.retryable):
                    raise fault from None
                if backoff_s > SEND_BACKOFF_S_MAX:
                    raise fault from None
                await self._clock.sleep_real(backoff_s)
                backoff_s *= 2

    def _fault(self, error: Exception) -> HoldfastError:
        text = f"{type(error).__name__}: {error}".replace(self._token, "<token>")
        if isinstance(error, TelegramUnauthorizedError):
            return UsageError("Telegram does not know this token; ask @BotFather for another")
        retryable = isinstance(
            error, TelegramNetworkError | TelegramServerError | TelegramRetryAfter
        )
        return OperationFault(f"Telegram: {text}", retryable=retryable)
