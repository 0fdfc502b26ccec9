"""Providers' keys in use: set, checked, rotated, reminded of (seed 004 §5.4).

    staged -> checked at the provider -> taken into use          the former is used until then

A key comes in by `stage`, is tried by listing the account's machines, and is sealed; `take` tries
it once more and puts it in the place of the former. Whoever needs a key asks for it at each call,
so a new one counts from the next order on. A value is never logged, never in an argument or an
environment, and in no row of the control store: every headquarters has its own sealed copy. Rows
say the rest: a fingerprint, since when, by whom, for what, until when.

A key that still lies in the plain `key_file` of `hq.json` is sealed at the first start; a file in
our own directory is removed then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import HoldfastError, OperationFault, UsageError
from holdfast.hq.audit import AuditLog
from holdfast.hq.vault import Vault
from holdfast.limits.control import CREDENTIAL_BYTES_MAX
from holdfast.logic.trust.credentials import (
    CREDENTIALS,
    CredentialRow,
    credentials_due,
    fingerprint,
)
from holdfast.rim.clock import Clock
from holdfast.rim.cloud.account import Account, Kind
from holdfast.rim.cloud.make import make_cloud
from holdfast.rim.cloud.port import Scoped
from holdfast.rim.control.store import ControlStore, KeyValue, Put, unchanged
from holdfast.rim.files import read_file, remove_file

REMIND_S: Final = 86_400.0
_log = logging.getLogger("holdfast.hq.credentials")


class Standing(msgspec.Struct, frozen=True):
    """One account as it stands here; `here` and `staged` are fingerprints, empty for none."""

    account: Account
    row: CredentialRow
    here: str
    staged: str


class CredentialBook:
    """The keys of one headquarters' accounts."""

    def __init__(
        self,
        home: Path,
        vault: Vault,
        store: ControlStore,
        audit: AuditLog,
        clock: Clock,
        network: bytes,
        accounts: Sequence[Account],
    ) -> None:
        self._home = home
        self._vault = vault
        self._store = store
        self._audit = audit
        self._clock = clock
        self._network = network
        self._accounts = {account.name: account for account in accounts}
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Seal what still lies in plain files. Raises OperationFault."""
        for account in self._accounts.values():
            if account.kind is not Kind.DOCKER and account.key_file:
                await self._seal_plain(account)

    async def _seal_plain(self, account: Account) -> None:
        path = self._home / account.key_file
        data = read_file(path)
        if data is None:
            return
        ours = path.resolve().is_relative_to(self._home.resolve())
        if self._vault.get(account.name) is None:
            value = data.decode("utf-8", "replace").strip()
            self._vault.put(account.name, value)
            await self._note_key(account.name, value, "hq.json", ())
            _log.info("the key of %s is sealed now", account.name)
        elif self._print(account.name, data.decode("utf-8", "replace").strip()) != (
            self._here(account.name)
        ):
            _log.error(
                "%s holds another key of %s than the sealed one, which is used; change it with "
                "holdfast provider credential rotate, and remove the file",
                path,
                account.name,
            )
            return
        if ours:
            remove_file(path)
        else:
            _log.warning("the key of %s lies in plain at %s; remove it", account.name, path)

    # --- Used ------------------------------------------------------------------------------------
    def key(self, provider: str) -> str:
        """The key for the next call. Raises OperationFault when there is none."""
        value = self._vault.get(provider)
        if value is None:
            raise OperationFault(
                f"no key of provider {provider} here; set it: holdfast provider credential set "
                f"{provider}"
            )
        return value

    # --- Changed ---------------------------------------------------------------------------------
    async def stage(self, provider: str, value: str, author: str) -> str:
        """Try a key and keep it for `take`; its fingerprint. Raises UsageError, OperationFault."""
        account, value = self._account(provider), value.strip()
        if not value or len(value.encode()) > CREDENTIAL_BYTES_MAX or not value.isprintable():
            raise UsageError(f"a key is one line of at most {CREDENTIAL_BYTES_MAX} bytes")
        await self._try(account, value)
        async with self._turn:
            self._vault.stage(provider, value)
        mark = self._print(provider, value)
        await self._audit.line("credential.staged", provider, fingerprint=mark, author=author)
        return mark

    async def take(self, provider: str, mark: str, author: str) -> CredentialRow:
        """Use the staged key with this fingerprint, once it has been tried again. The former is
        dropped only then. Raises UsageError, OperationFault."""
        account = self._account(provider)
        value = self._vault.staged(provider)
        if value is None or self._print(provider, value) != mark:
            raise UsageError(
                f"no key of {provider} with fingerprint {mark} waits; begin anew: holdfast "
                f"provider credential rotate {provider}"
            )
        scopes = await self._try(account, value)
        async with self._turn:
            former = self._here(provider)
            self._vault.put(provider, value)
            row = await self._note_key(provider, value, author, scopes)
            self._vault.unstage(provider)
        verb = "credential.rotated" if former else "credential.set"
        detail = {"fingerprint": mark, "former": former, "scopes": list(scopes), "author": author}
        await self._audit.line(verb, provider, **detail)
        return row

    async def schedule(self, provider: str, every_days: float, author: str) -> CredentialRow:
        """Be reminded every so many days; 0 for never. Raises UsageError, OperationFault."""
        self._account(provider)
        row = await self._change(provider, every_days=every_days, reminded_at=0.0)
        detail = {"every_days": every_days, "author": author}
        await self._audit.line("credential.scheduled", provider, **detail)
        return row

    async def _try(self, account: Account, value: str) -> tuple[str, ...]:
        """List the machines with a key: harmless, and says whether it works. What it may do."""
        cloud = make_cloud(account, self._network.hex(), lambda: value, self._clock)
        try:
            await cloud.list()
            return await cloud.scopes() if isinstance(cloud, Scoped) else ()
        except HoldfastError as error:
            text = str(error).replace(value, "(the key)")
            kind = OperationFault if isinstance(error, OperationFault) else UsageError
            raise kind(f"{account.name} does not take this key: {text}") from None

    # --- Looked at -------------------------------------------------------------------------------
    async def standings(self) -> tuple[Standing, ...]:
        """Every account that has a key."""
        rows = {row.provider: row for row in await self.rows()}
        return tuple(
            Standing(
                account, rows.get(name, CredentialRow(name)), self._here(name), self._staged(name)
            )
            for name, account in self._accounts.items()
            if account.kind is not Kind.DOCKER
        )

    async def rows(self) -> tuple[CredentialRow, ...]:
        """The rows of the accounts there are. Raises OperationFault."""
        reply = await self._store.range(CREDENTIALS)
        rows = (msgspec.msgpack.decode(kv.value, type=CredentialRow) for kv in reply.items)
        return tuple(row for row in rows if row.provider in self._accounts)

    async def due(self) -> tuple[str, ...]:
        """Providers whose key is to be rotated by now."""
        return tuple(row.provider for row in credentials_due(await self.rows(), self._clock.wall()))

    async def remind(self) -> None:
        """A line of the audit log a day for each rotation that is due. Raises OperationFault."""
        now = self._clock.wall()
        for row in credentials_due(await self.rows(), now):
            if now - row.reminded_at >= REMIND_S:
                await self._change(row.provider, reminded_at=now)
                overdue_days = round((now - row.next_at) / 86_400, 1)
                await self._audit.line("credential.due", row.provider, overdue_days=overdue_days)

    # --- Rows ------------------------------------------------------------------------------------
    async def _note_key(
        self, provider: str, value: str, author: str, scopes: tuple[str, ...]
    ) -> CredentialRow:
        """A key that another headquarters took before is no new one."""
        mark = self._print(provider, value)
        known = await self._get(provider)
        if known[1].fingerprint == mark and (known[1].scopes or not scopes):
            return known[1]
        changes = {"fingerprint": mark, "author": author, "scopes": scopes, "reminded_at": 0.0}
        since = known[1].set_at if known[1].fingerprint == mark else self._clock.wall()
        return await self._change(provider, set_at=since, **changes)

    async def _change(self, provider: str, **changes: object) -> CredentialRow:
        while True:
            kv, row = await self._get(provider)
            row = msgspec.structs.replace(row, **changes)
            key = CREDENTIALS + provider
            put = Put(key, msgspec.msgpack.encode(row))
            if (await self._store.txn([unchanged(key, kv)], [put])).succeeded:
                return row

    async def _get(self, provider: str) -> tuple[KeyValue | None, CredentialRow]:
        kv = await self._store.get(CREDENTIALS + provider)
        if kv is None:
            return None, CredentialRow(provider)
        return kv, msgspec.msgpack.decode(kv.value, type=CredentialRow)

    # --- Helpers ---------------------------------------------------------------------------------
    def _account(self, provider: str) -> Account:
        account = self._accounts.get(provider)
        if account is None:
            have = ", ".join(self._accounts) or "none"
            raise UsageError(f"hq.json has no provider {provider!r}; there is {have}")
        if account.kind is Kind.DOCKER:
            raise UsageError(f"{provider} is a docker engine; it has no key")
        return account

    def _print(self, provider: str, value: str) -> str:
        return fingerprint(self._network, provider, value)

    def _here(self, provider: str) -> str:
        value = self._vault.get(provider)
        return self._print(provider, value) if value is not None else ""

    def _staged(self, provider: str) -> str:
        value = self._vault.staged(provider)
        return self._print(provider, value) if value is not None else ""
