"""What HQ asks of a hosting provider: three calls, level-triggered (D25).

The caller names a server by its intent id and lists before it creates, so that a call repeated
after a crash makes no second machine. Only HQ holds provider keys (seed 004 §3.3, §5.4).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from holdfast.wire.cloud import CreateServer, Server


@runtime_checkable
class Scoped(Protocol):
    """A `Cloud` whose provider says what a key may do."""

    async def scopes(self) -> tuple[str, ...]:
        """The provider's own words for it; `servers` is all that headquarters needs."""
        ...


class Cloud(Protocol):
    """One provider account. `OperationFault`: the provider cannot be reached or failed, try later.
    `UsageError`: it said no (key, region, quota, name taken) and will again."""

    async def create(self, request: CreateServer) -> Server:
        """Order a machine. Raises UsageError when the name is taken."""
        ...

    async def list(self) -> tuple[Server, ...]:
        """Every machine of this account, the running and the recently gone."""
        ...

    async def delete(self, name: str) -> None:
        """Destroy a machine; one that does not exist is no error."""
        ...
