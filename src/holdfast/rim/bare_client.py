"""A bare connection to a pool server, for drills whose clients do not speak as they should."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from holdfast.rim.clock import Clock
from holdfast.rim.pool_client import tls_context
from holdfast.wire.address import split_address


class BareDialler:
    """Makes connections to `address`; with TLS they are verified as an honest client's are."""

    def __init__(self, address: str, roots: Sequence[bytes], clock: Clock) -> None:
        self._host, self._port = split_address(address)
        self._context = tls_context(tuple(roots))
        self._clock = clock

    async def dial(
        self, *, tls: bool, timeout_s: float
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection. Raises OSError and TimeoutError, after `timeout_s` real seconds."""
        async with self._clock.real_timeout(timeout_s):
            return await asyncio.open_connection(
                self._host, self._port, ssl=self._context if tls else None
            )
