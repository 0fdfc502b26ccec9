"""The operator's verbs about providers' keys (seed 004 §5.4).

| method and path                                   | shape                |
|---------------------------------------------------|----------------------|
| GET  /admin/v1/credentials                        | -> Credentials       |
| POST /admin/v1/credentials/{name}/stage           | KeyOffer -> Staged   |
| POST /admin/v1/credentials/{name}/take            | Take -> Credential   |
| PUT  /admin/v1/credentials/{name}/schedule        | Every -> Credential  |

No reply holds a key. A change is for two persons, and what waits for the second one is written
down: so the key goes in first and alone (`stage`, which changes nothing), and what waits names it
by its fingerprint.
"""

from __future__ import annotations

from typing import Any

from holdfast.errors import UsageError
from holdfast.hq.credentials import Standing
from holdfast.hq.parts import Parts
from holdfast.hq.verbs import READERS, RUNNERS, Asked, Verb
from holdfast.limits.control import CREDENTIAL_DAYS_MAX
from holdfast.wire.codec import Message


class KeyOffer(Message):
    """The key itself."""

    key: str


class Staged(Message):
    """It works at the provider, and waits."""

    provider: str
    fingerprint: str


class Take(Message):
    """Which staged key."""

    fingerprint: str


class Every(Message):
    """0 ends the reminders."""

    every_days: float


class Credential(Message):
    """Times are Unix seconds, 0 for never. `scopes`: what the provider says the key may do, empty
    where it does not say; `wide` when that is more than to make, list and destroy machines. `here`:
    whether this headquarters has the key that was set last; `staged`: the fingerprint of one that
    waits."""

    provider: str
    kind: str
    fingerprint: str
    set_at: float
    author: str
    age_days: float
    scopes: tuple[str, ...]
    wide: bool
    every_days: float
    next_rotation_at: float
    due: bool
    here: bool
    staged: str


class Credentials(Message):
    items: tuple[Credential, ...]


class CredentialVerbs:
    """The handlers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def verbs(self) -> tuple[Verb, ...]:
        return (
            Verb("GET", "/credentials", READERS, self.show),
            Verb("POST", "/credentials/{name}/stage", RUNNERS, self.stage, KeyOffer),
            Verb("POST", "/credentials/{name}/take", RUNNERS, self.take, Take, second=True),
            Verb("PUT", "/credentials/{name}/schedule", RUNNERS, self.schedule, Every, second=True),
        )

    async def show(self, _asked: Asked, _body: Any) -> Credentials:
        found = await self._parts.credentials.standings()
        return Credentials(tuple(self._view(item) for item in found))

    async def stage(self, asked: Asked, body: KeyOffer) -> Staged:
        name = asked.path_params["name"]
        mark = await self._parts.credentials.stage(name, body.key, asked.author)
        return Staged(name, mark)

    async def take(self, asked: Asked, body: Take) -> Credential:
        name = asked.path_params["name"]
        await self._parts.credentials.take(name, body.fingerprint, asked.author)
        return await self._one(name)

    async def schedule(self, asked: Asked, body: Every) -> Credential:
        if not 0 <= body.every_days <= CREDENTIAL_DAYS_MAX:
            raise UsageError(f"every_days from 0 to {CREDENTIAL_DAYS_MAX:g}")
        name = asked.path_params["name"]
        await self._parts.credentials.schedule(name, body.every_days, asked.author)
        return await self._one(name)

    async def _one(self, name: str) -> Credential:
        found = await self._parts.credentials.standings()
        return next(self._view(item) for item in found if item.account.name == name)

    def _view(self, item: Standing) -> Credential:
        row, now = item.row, self._parts.clock.wall()
        return Credential(
            provider=row.provider,
            kind=item.account.kind.value,
            fingerprint=row.fingerprint,
            set_at=row.set_at,
            author=row.author,
            age_days=round((now - row.set_at) / 86_400, 2) if row.set_at else 0.0,
            scopes=row.scopes,
            wide=row.is_wide,
            every_days=row.every_days,
            next_rotation_at=row.next_at,
            due=0 < row.next_at <= now,
            here=bool(item.here) and item.here == row.fingerprint,
            staged=item.staged,
        )
