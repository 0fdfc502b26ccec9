"""Inviting and joining through a mailbox (D21; `wire.invite` has the protocol).

Both sides keep their part on disk and can be killed at any point: the inviter burns the invite in
one transaction with its decision and answers again after a crash; the joiner keeps the private half
of its wrap key until it has the answer.

Whoever holds the invite first gets in; everybody later is refused by name. The inviter's device
must run while the invite is used: nothing that opens the group ever lies in the mailbox unwrapped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from holdfast.crypto.era import Era
from holdfast.crypto.wrap import WrapKey, wrap
from holdfast.device.state import JOIN_SEED, DeviceState
from holdfast.errors import PeerFault, UsageError
from holdfast.fabric.database import Database
from holdfast.fabric.slot import Slot
from holdfast.limits import INVITE_S_MAX
from holdfast.rim.entropy import Entropy
from holdfast.wire.codec import pack, unpack
from holdfast.wire.envelope import sign, verify
from holdfast.wire.invite import (
    Invite,
    InviteAnswer,
    InviteGift,
    InviteRequest,
    answer_info,
    request_id,
)
from holdfast.wire.locator import Locator
from holdfast.wire.person import DeviceStatement, verify_statement
from holdfast.wire.pool import BlobClass
from holdfast.wire.signed import Signed, Type, unpack_signed

GIFT_BYTES_MAX = 4_096
LATE_S = 3_600
"""Requests are looked for, and refused by name, this long after an invite ran out."""


class Mailbox:
    """The log of one mailbox, read as it comes; order of arrival here. A `LogSink`."""

    def __init__(self) -> None:
        self.requests: dict[bytes, tuple[Signed, InviteRequest, DeviceStatement]] = {}
        self.answers: dict[bytes, tuple[Signed, InviteAnswer]] = {}

    def take(self, blob: bytes, payload: bytes) -> None:
        """Take a request or an answer whose own signature holds. Raises PeerFault."""
        signed = unpack_signed(payload)
        if signed.body[:1] == bytes((Type.INVITE_REQUEST,)):
            request = verify(Type.INVITE_REQUEST, InviteRequest, signed)
            statement = verify_statement(request.statement)
            if statement.device != signed.signer or not statement.roles:
                raise PeerFault("invite request by a device nobody vouches for", code="signature")
            self.requests.setdefault(request_id(signed), (signed, request, statement))
        else:
            answer = verify(Type.INVITE_ANSWER, InviteAnswer, signed)
            self.answers.setdefault(request_id(signed), (signed, answer))

    def missing(self) -> Sequence[bytes]:
        """A mailbox is no graph."""
        return ()

    def name_gap(self, operation: bytes) -> None:
        raise AssertionError("a mailbox has no parents")


def mailbox_era(invite: Invite) -> Era:
    """The mailbox of an invite."""
    return Era(invite.mailbox_secret, invite.locator.network)


class Invitation(msgspec.Struct, frozen=True):
    """An invite this device made, and what became of it. `taken_by_name` is empty while open."""

    id: bytes
    group: bytes
    line: str
    expires_at: int
    taken_by_name: str = ""
    refused: tuple[str, ...] = ()
    """Names of devices that came after the first."""


Admit = Callable[[bytes, DeviceStatement], Awaitable[InviteGift]]
"""Makes a device and its person members of a group, and says what opens it."""


def make_invite(
    database: Database,
    *,
    group: bytes,
    locator: Locator,
    device: bytes,
    key: bytes,
    wall_s: float,
) -> Invite:
    """A new invite to `group` by the device with that public key, kept before anybody sees it.

    `key` is 32 random bytes. Needs nothing but the database: another process may be the one that
    answers.
    """
    invite = Invite(locator, key, device, int(wall_s + INVITE_S_MAX))
    with database.durable():
        database.run(
            "insert into invites (id, grp, line, expires_at) values (?, ?, ?, ?)",
            (invite.id, group, str(invite), invite.expires_at),
        )
    return invite


def taken_by(database: Database, invite: bytes) -> str:
    """Name of the device that used an invite; empty while nobody has."""
    row = database.one("select coalesce(taken_by_name, '') from invites where id = ?", (invite,))
    assert row is not None
    name: str = row[0]
    return name


class Host:
    """The inviting side of one device."""

    def __init__(self, state: DeviceState, admit: Admit) -> None:
        self._state = state
        self._database: Database = state.database
        self._admit = admit

    def all(self) -> list[Invitation]:
        """Every invite made here, newest first."""
        rows = self._database.run(
            "select id, grp, line, expires_at, coalesce(taken_by_name, ''), request from invites"
            " order by expires_at desc"
        )
        return [
            Invitation(invite, group, line, expires_at, taken_by, self._late_names(invite, first))
            for invite, group, line, expires_at, taken_by, first in rows
        ]

    def waiting(self, wall_s: float) -> list[Invitation]:
        """Invites for which requests are still looked for."""
        return [invite for invite in self.all() if wall_s <= invite.expires_at + LATE_S]

    async def answer(self, invite: Invite, mailbox: Mailbox, slot: Slot, wall_s: float) -> int:
        """Decide on requests that are new, then answer what is unanswered; how many were."""
        for name, (signed, request, statement) in mailbox.requests.items():
            if request.invite == invite.id:
                self._decide(invite, name, signed, statement, wall_s)
        rows = self._database.run(
            "select id, signed from requests where invite = ? and not answered", (invite.id,)
        )
        for name, data in rows:
            await self._answer_one(invite, name, unpack_signed(data), slot, wall_s)
        return len(rows)

    def _decide(
        self,
        invite: Invite,
        name: bytes,
        signed: Signed,
        statement: DeviceStatement,
        wall_s: float,
    ) -> None:
        """Keep a request; the first one in time burns the invite, in the same transaction."""
        with self._database.durable():
            self._database.run(
                "insert or ignore into requests values (?, ?, ?, ?, 0)",
                (name, invite.id, statement.name, pack(signed)),
            )
            if wall_s <= invite.expires_at:
                self._database.run(
                    "update invites set request = ?, taken_by = ?, taken_by_name = ?, taken_at = ?"
                    " where id = ? and request is null",
                    (name, signed.signer, statement.name, wall_s, invite.id),
                )

    async def _answer_one(
        self, invite: Invite, name: bytes, signed: Signed, slot: Slot, wall_s: float
    ) -> None:
        request = verify(Type.INVITE_REQUEST, InviteRequest, signed)
        row = self._database.one(
            "select grp, request, taken_by, taken_by_name from invites where id = ?", (invite.id,)
        )
        assert row is not None
        group, first, taken_by, taken_by_name = row
        sealed = b""
        if name == first:
            gift = await self._admit(group, verify_statement(request.statement))
            sealed = wrap(request.wrap_key, pack(gift), answer_info(invite.id, name))
        answer = InviteAnswer(
            invite.id, name, sealed, taken_by or b"", taken_by_name or "", int(wall_s)
        )
        payload = pack(sign(self._state.key, Type.INVITE_ANSWER, answer))

        def note() -> None:
            self._database.run("update requests set answered = 1 where id = ?", (name,))

        await slot.put_many(mailbox_era(invite), BlobClass.LOG, [payload], also=note)

    def _late_names(self, invite: bytes, first: bytes | None) -> tuple[str, ...]:
        rows = self._database.run("select id, name from requests where invite = ?", (invite,))
        return tuple(name for request, name in rows if request != first)


class Guest:
    """The joining side of one device, for one invite."""

    def __init__(self, state: DeviceState, invite: Invite) -> None:
        self.invite = invite
        self.era = mailbox_era(invite)
        self.mailbox = Mailbox()
        self._state = state
        self._request = b""
        self._wrap_key: WrapKey | None = None

    async def ask(self, slot: Slot, entropy: Entropy, wall_s: float) -> None:
        """Post the request, once; a restart goes on waiting for the answer to the first one."""
        database = self._state.database
        row = database.one("select wrap_seed, request from joins where id = ?", (self.invite.id,))
        if row is not None:
            wrap_seed = self._state.at_rest.open(JOIN_SEED, row[0])
            self._wrap_key, self._request = WrapKey(wrap_seed), row[1]
            return
        seed = entropy.bytes(32)
        kept = self._state.at_rest.seal(JOIN_SEED, seed)
        self._wrap_key = WrapKey(seed)
        request = InviteRequest(
            self.invite.id, self._state.statement, self._wrap_key.public, int(wall_s)
        )
        signed = sign(self._state.key, Type.INVITE_REQUEST, request)
        self._request = request_id(signed)

        def note() -> None:
            database.run(
                "insert into joins values (?, ?, ?, ?)",
                (self.invite.id, str(self.invite), kept, self._request),
            )

        await slot.put_many(self.era, BlobClass.LOG, [pack(signed)], also=note)

    def taken_by_another(self) -> str:
        """The name of a device that the inviter let in before us, as far as the mailbox says."""
        for _, answer in self._genuine():
            if answer.sealed and answer.request != self._request:
                return answer.taken_by_name
        return ""

    def gift(self) -> InviteGift | None:
        """What opens the group, once the inviter answered. Raises UsageError when it refused."""
        for _, answer in self._genuine():
            if answer.request != self._request:
                continue
            if not answer.sealed:
                who = answer.taken_by_name or "nobody: it had expired"
                raise UsageError(f"this invite was used by {who}; ask for a new one")
            assert self._wrap_key is not None, "asked before answered"
            info = answer_info(self.invite.id, self._request)
            plain = self._wrap_key.unwrap(answer.sealed, info)
            return unpack(InviteGift, plain, bytes_max=GIFT_BYTES_MAX)
        return None

    def joined(self) -> None:
        """Forget the private half: from now on the mailbox opens for nobody."""
        with self._state.database.durable():
            self._state.database.run("delete from joins where id = ?", (self.invite.id,))

    def _genuine(self) -> list[tuple[Signed, InviteAnswer]]:
        """Answers by the device that the invite names."""
        return [
            (signed, answer)
            for signed, answer in self.mailbox.answers.values()
            if signed.signer == self.invite.inviter and answer.invite == self.invite.id
        ]
