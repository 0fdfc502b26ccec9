"""What the bot does about a message. It sees Telegram ids and HQ's admin port, and lets neither
know of the other: HQ gets an HMAC (`Member.contact`), Telegram gets links.

Commands only, no keyboards: they work in every client, and can be read aloud over a telephone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Final, Protocol, TypeVar

from holdfast.bot.contacts import NOTE_LETTERS_MAX, REQUESTS_MAX, Contacts, Request
from holdfast.bot.words import say
from holdfast.crypto.pure import base32
from holdfast.errors import OperationFault, UsageError
from holdfast.hq.access import DeviceMade
from holdfast.hq.access_admin import AccessState, DeviceOrder, MemberOrder
from holdfast.hq.subscription_page import amount, day
from holdfast.hq.watch_admin import AlertItems
from holdfast.logic.access.model import CellState, Device, Member, Standing
from holdfast.logic.access.subscription import SubscriptionState, Usage, state_of
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.telegram import Incoming

T = TypeVar("T")
CHATS_MAX: Final = 10_000
MESSAGES_BURST: Final = 20
MESSAGES_PER_S: Final = 0.5
"""Of one user; more is not answered at all."""


class Admin(Protocol):
    """HQ's admin port, as `rim.loopback.LoopbackClient` has it."""

    async def call(self, method: str, path: str, body: object | None, reply: type[T], /) -> T:
        """Raises OperationFault when HQ is away, UsageError when it says no."""
        ...


Send = Callable[[int, str], Awaitable[bool]]
Known = tuple[int, str]
"""A chat's id, and its language."""


class Desk:
    """One for each bot process."""

    def __init__(
        self,
        admin: Admin,
        contacts: Contacts,
        send: Send,
        base_url: str,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        """`base_url` is what members reach subscriptions by."""
        self._admin = admin
        self._contacts = contacts
        self._send = send
        self._base_url = base_url.rstrip("/")
        self._clock = clock
        self._entropy = entropy
        self._chats: OrderedDict[bytes, Known] = OrderedDict()
        self._budgets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        self._told: dict[bytes, SubscriptionState] = {}
        self._verdicts: dict[str, str] = {}
        self._alerted: set[str] = set()
        self._commands: Mapping[str, Callable[[Asked], Awaitable[str]]] = {
            "/start": self._help,
            "/help": self._help,
            "/join": self._join,
            "/subscription": self._subscription,
            "/device": self._device,
            "/lost": self._lost,
            "/status": self._status,
            "/alerts": self._alerts,
            "/requests": self._requests,
            "/approve": self._approve,
            "/deny": self._deny,
            "/nodes": self._nodes,
        }

    # --- In --------------------------------------------------------------------------------------
    async def take(self, message: Incoming) -> None:
        """Answer one message. Raises OperationFault when Telegram is away."""
        contact = self._contacts.contact(message.user)
        if not self._affords(contact):
            return
        if not message.private:
            if message.text.startswith("/"):
                await self._send(message.chat, say(message.language, "private"))
            return
        self._chats[contact] = (message.chat, message.language)
        self._chats.move_to_end(contact)
        if len(self._chats) > CHATS_MAX:
            self._chats.popitem(last=False)
        word, _, rest = message.text.strip().partition(" ")
        command = self._commands.get(word.partition("@")[0].lower(), self._help)
        asked = Asked(contact, message.language, rest.strip())
        try:
            answer = await command(asked)
        except OperationFault:
            answer = asked.say("away")
        except UsageError as error:
            answer = asked.say("refused", why=str(error))
        await self._send(message.chat, answer)

    def _affords(self, contact: bytes) -> bool:
        now = self._clock.elapsed() / self._clock.scale
        left, at = self._budgets.pop(contact, (float(MESSAGES_BURST), now))
        left = min(float(MESSAGES_BURST), left + (now - at) * MESSAGES_PER_S)
        self._budgets[contact] = (left - 1.0 if left >= 1.0 else left, now)
        if len(self._budgets) > CHATS_MAX:
            self._budgets.popitem(last=False)
        return left >= 1.0

    # --- Members ---------------------------------------------------------------------------------
    async def _help(self, asked: Asked) -> str:
        more = asked.say("operator-help") if self._is_operator(asked) else ""
        return asked.say("help") + more

    async def _join(self, asked: Asked) -> str:
        if _member(await self._state(), asked.contact) is not None:
            return asked.say("member-already")
        waiting = self._contacts.request_of(asked.contact)
        if waiting is not None:
            return asked.say("asked-already", code=waiting.code)
        requests = self._contacts.book.requests
        if len(requests) >= REQUESTS_MAX:
            return asked.say("busy")
        note = " ".join(asked.rest.split())[:NOTE_LETTERS_MAX]
        request = Request(base32(self._entropy.bytes(5)), asked.contact, note)
        self._contacts.change(requests=(*requests, request))
        for operator in self._contacts.book.operators:
            await self._tell(operator, "new-request", code=request.code, note=note)
        return asked.say("asked", code=request.code)

    async def _subscription(self, asked: Asked) -> str:
        state = await self._state()
        member = _member(state, asked.contact)
        if member is None:
            return asked.say("stranger")
        if _devices(state, member):
            return asked.say("link-once")
        return await self._new_device(asked, state, member, "telegram")

    async def _device(self, asked: Asked) -> str:
        state = await self._state()
        member = _member(state, asked.contact)
        if member is None:
            return asked.say("stranger")
        return await self._new_device(asked, state, member, asked.rest[:40])

    async def _new_device(
        self, asked: Asked, state: AccessState, member: Member, label: str
    ) -> str:
        taken = [device.cell for device in state.devices]
        cells = [cell.id for cell in state.cells if cell.state is CellState.ACTIVE]
        if not cells:
            return asked.say("no-cell")
        cell = min(cells, key=taken.count)
        order = DeviceOrder(member.id, cell, label)
        made = await self._admin.call("POST", "/admin/v1/access/devices", order, DeviceMade)
        return asked.say("link", number=len(_devices(state, member)) + 1, url=self._url(made))

    async def _lost(self, asked: Asked) -> str:
        state = await self._state()
        member = _member(state, asked.contact)
        if member is None:
            return asked.say("stranger")
        devices = _devices(state, member)
        wanted = asked.rest or ("1" if len(devices) == 1 else "")
        if not wanted.isdecimal() or not 1 <= int(wanted) <= len(devices):
            return asked.say("which")
        path = f"/admin/v1/access/devices/{devices[int(wanted) - 1].id}/token"
        made = await self._admin.call("POST", path, None, DeviceMade)
        link = asked.say("link", number=wanted, url=self._url(made))
        return asked.say("replaced", number=wanted) + "\n" + link

    async def _status(self, asked: Asked) -> str:
        state = await self._state()
        member = _member(state, asked.contact)
        if member is None:
            return asked.say("stranger")
        devices = _devices(state, member)
        standing = self._told[asked.contact] = self._standing(state, member)
        quota, until = member.quota_bytes, member.expires_at
        head = asked.say(
            "status",
            state=asked.say(standing.value),
            used=amount(state.usage.get(member.id, Usage()).total),
            quota=amount(quota) if quota else asked.say("unlimited"),
            until=day(until) if until else asked.say("ever"),
            count=len(devices),
            most=member.devices_max,
        )
        return "\n".join([head, *(asked.device(i, d) for i, d in enumerate(devices, 1))])

    async def _alerts(self, asked: Asked) -> str:
        quiet = set(self._contacts.book.quiet) - {asked.contact}
        off = asked.rest.lower() == "off"
        self._contacts.change(quiet=tuple(sorted(quiet | ({asked.contact} if off else set()))))
        return asked.say("alerts-off" if off else "alerts-on")

    # --- Operators -------------------------------------------------------------------------------
    def _is_operator(self, asked: Asked) -> bool:
        return asked.contact in self._contacts.book.operators

    async def _requests(self, asked: Asked) -> str:
        if not self._is_operator(asked):
            return await self._help(asked)
        lines = [asked.say("request", code=r.code, note=r.note) for r in self._requests_now()]
        return "\n".join(lines) or asked.say("no-requests")

    async def _approve(self, asked: Asked) -> str:
        if not self._is_operator(asked):
            return await self._help(asked)
        request = self._named(asked)
        if request is None:
            return asked.say("no-such-request", code=asked.rest)
        if _member(await self._state(), request.contact) is None:  # said twice, or died between
            order = MemberOrder(contact=request.contact)
            await self._admin.call("POST", "/admin/v1/access/members", order, Member)
        self._forget(request)
        await self._tell(request.contact, "approved")
        return asked.say("done")

    async def _deny(self, asked: Asked) -> str:
        if not self._is_operator(asked):
            return await self._help(asked)
        request = self._named(asked)
        if request is None:
            return asked.say("no-such-request", code=asked.rest)
        self._forget(request)
        await self._tell(request.contact, "denied")
        return asked.say("done")

    async def _nodes(self, asked: Asked) -> str:
        if not self._is_operator(asked):
            return await self._help(asked)
        state = await self._state()
        lines = [
            asked.say(
                "cell",
                cell=cell.id,
                state=cell.state.value,
                verdict=state.verdicts.get(cell.id, ""),
                entries=sum(entry.cell == cell.id for entry in state.entries),
                cores=sum(core.cell == cell.id for core in state.cores),
                devices=sum(device.cell == cell.id for device in state.devices),
            )
            for cell in state.cells
        ]
        return "\n".join(lines) or asked.say("no-cells")

    def _requests_now(self) -> tuple[Request, ...]:
        return self._contacts.book.requests

    def _named(self, asked: Asked) -> Request | None:
        """The request of that code."""
        return next((r for r in self._requests_now() if r.code == asked.rest.lower()), None)

    def _forget(self, request: Request) -> None:
        kept = tuple(r for r in self._requests_now() if r.code != request.code)
        self._contacts.change(requests=kept)

    # --- Out -------------------------------------------------------------------------------------
    async def look(self) -> None:
        """Compare with the last look, and tell whom it concerns. Raises OperationFault."""
        state = await self._state()
        for member in state.members:
            standing = self._standing(state, member)
            before = self._told.get(member.contact)
            if member.contact:
                self._told[member.contact] = standing
            if before not in (None, standing) and member.contact not in self._contacts.book.quiet:
                await self._tell(member.contact, "changed", _state=standing)
        for cell, verdict in state.verdicts.items():
            if self._verdicts.get(cell, verdict) != verdict:
                for operator in self._contacts.book.operators:
                    await self._tell(operator, "cell-changed", cell=cell, verdict=verdict)
        self._verdicts = dict(state.verdicts)
        await self._look_for_alerts()

    async def _look_for_alerts(self) -> None:
        """Tell operators of alerts that are new since the last look, each once."""
        items = (await self._admin.call("GET", "/admin/v1/alerts", None, AlertItems)).items
        for item in items:
            if item.id in self._alerted or item.acknowledged_by:
                continue
            for operator in self._contacts.book.operators:
                await self._tell(
                    operator,
                    "alert",
                    severity=item.severity,
                    subject=item.subject,
                    what=item.what,
                    step=item.step,
                )
        self._alerted = {item.id for item in items}

    async def _tell(
        self, contact: bytes, key: str, _state: SubscriptionState | None = None, **values: object
    ) -> None:
        """Write to somebody who has written since we started; in vain to others."""
        known = self._chats.get(contact)
        if known is not None:
            chat, language = known
            if _state is not None:
                values["state"] = say(language, _state.value)
            await self._send(chat, say(language, key, **values))

    # --- HQ --------------------------------------------------------------------------------------
    async def _state(self) -> AccessState:
        return await self._admin.call("GET", "/admin/v1/access", None, AccessState)

    def _standing(self, state: AccessState, member: Member) -> SubscriptionState:
        used = state.usage.get(member.id, Usage()).total
        return state_of(member, _NO_DEVICE, used, self._clock.wall())

    def _url(self, made: DeviceMade) -> str:
        return f"{self._base_url}/sub/{made.token}"


class Asked:
    """A command, from whom and in which language."""

    def __init__(self, contact: bytes, language: str, rest: str) -> None:
        self.contact = contact
        self.language = language
        self.rest = rest

    def say(self, key: str, **values: object) -> str:
        """In the asker's language."""
        return say(self.language, key, **values)

    def device(self, number: int, device: Device) -> str:
        """One line about a device."""
        at = device.fetched_at
        fetched = f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC" if at else ""
        return self.say(
            "device",
            number=number,
            label=device.label or device.id[:6],
            standing=self.say(device.standing.value),
            fetched=fetched or self.say("never"),
        )


_NO_DEVICE: Final = Device("", "", "", "", b"", Standing.ACTIVE)
"""Stands for any device when a member's own standing is asked for."""


def _member(state: AccessState, contact: bytes) -> Member | None:
    return next((m for m in state.members if m.contact == contact), None)


def _devices(state: AccessState, member: Member) -> list[Device]:
    """A member's devices that may be served, oldest first: what numbers count."""
    own = [d for d in state.devices if d.member == member.id and d.standing is Standing.ACTIVE]
    return sorted(own, key=lambda device: (device.created_at, device.id))
