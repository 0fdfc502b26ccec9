"""Plain HTTP for processes of this machine: the server to `rim.loopback`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from holdfast.errors import OperationFault
from holdfast.rim.loopback import loopback_address

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class LoopbackServer:
    """An ASGI application on plain HTTP at a loopback address."""

    def __init__(self, application: Application, *, connections_max: int = 256) -> None:
        self._application = application
        self._connections_max = connections_max
        self._server: asyncio.Server | None = None
        self._state = ServerState()
        self.address = ""

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 picks one. Raises OperationFault, UsageError when not loopback."""
        loopback_address(f"[{host}]:1" if ":" in host else f"{host}:1")
        config = uvicorn.Config(
            self._application,
            http=HttpToolsProtocol,
            interface="asgi3",
            proxy_headers=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            limit_concurrency=self._connections_max,
        )
        config.load()

        def protocol() -> asyncio.Protocol:
            return HttpToolsProtocol(config=config, server_state=self._state, app_state={})

        try:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(protocol, host, port)
        except OSError as error:
            why = f"cannot listen on {host}:{port}: {error.strerror}"
            raise OperationFault(why, retryable=False) from error
        self.address = f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is None:
            return
        self._server.close()
        for connection in tuple(self._state.connections):
            connection.shutdown()
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.close()
        tasks = tuple(self._state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
