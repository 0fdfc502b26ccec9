"""Inviting somebody into a group, and joining one, over the servers of the group's slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from holdfast.crypto.era import Era
from holdfast.device.group import Group
from holdfast.device.mailbox import Guest, Host, Mailbox, mailbox_era, make_invite
from holdfast.device.membership import let_in, publish_wrap
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.state import GroupKey
from holdfast.device.tend import ROOT_LABEL, admit_devices, keep_records, note_groups
from holdfast.errors import OperationFault, UsageError
from holdfast.fabric.puller import Puller
from holdfast.fabric.slot import Slot
from holdfast.logic.pool.fanout import Stage
from holdfast.wire.invite import Invite, InviteGift, parse_invite
from holdfast.wire.person import DeviceStatement

POLL_S: Final = 0.5
"""Real seconds between looks into a mailbox: somebody is waiting at a screen."""
REFUSAL_S: Final = 10.0
"""Real seconds a refused joiner spends on letting the others know its name."""


class Inviter:
    """Makes invites and answers requests, for all groups of one device."""

    def __init__(self, runtime: DeviceRuntime) -> None:
        self._runtime = runtime
        self.host = Host(runtime.state, self._admit)
        self._boxes: dict[bytes, tuple[Invite, Mailbox, Slot, Puller]] = {}

    def invite(self, key: GroupKey) -> Invite:
        """A new invite to a group, good for ten minutes and one use."""
        state = self._runtime.state
        return make_invite(
            state.database,
            group=key.id,
            locator=self._runtime.groups[key.id].slot.current_locator(),
            device=state.key.public,
            key=self._runtime.entropy.bytes(32),
            wall_s=self._runtime.clock.wall(),
        )

    async def answer(self) -> int:
        """Look into every mailbox once and answer what is new; how many requests were.

        Raises OperationFault when a mailbox cannot be read now.
        """
        answered = 0
        wall_s = self._runtime.clock.wall()
        for waiting in self.host.waiting(wall_s):
            if waiting.group not in self._runtime.groups:
                continue
            invite, mailbox, slot, puller = await self._box(waiting.id, waiting.line)
            await puller.read()
            answered += await self.host.answer(invite, mailbox, slot, wall_s)
        return answered

    async def _box(self, name: bytes, line: str) -> tuple[Invite, Mailbox, Slot, Puller]:
        if name not in self._boxes:
            invite = parse_invite(line, 0.0, ours=True)
            era, mailbox = mailbox_era(invite), Mailbox()
            slot = await self._runtime.slot(invite.locator.slot, era)
            puller = slot.puller(era, mailbox, remember=False)
            self._boxes[name] = (invite, mailbox, slot, puller)
        return self._boxes[name]

    async def _admit(self, group_id: bytes, statement: DeviceStatement) -> InviteGift:
        """Make the joiner's device and person members; what opens the group."""
        group = self._runtime.groups[group_id]
        person = statement.person
        wanted = [(statement.device, statement.name, person), (person, ROOT_LABEL, person)]
        await let_in(self._runtime, group, wanted)
        return InviteGift(group.id, group.era.secret, group.era.number, group.name, group.kind)


async def join_group(
    runtime: DeviceRuntime, invite: Invite, on_wait: Callable[[], None] = lambda: None
) -> Group:
    """Ask for a place in the group of an invite, and wait for the answer until it runs out.

    Raises UsageError when somebody else was first, OperationFault when nobody answers.
    """
    locator = await runtime.headquarters.roots(invite.locator)
    if runtime.state.locator(locator.slot) is None:
        runtime.state.keep_locator(locator)
    guest = Guest(runtime.state, invite)
    slot = await runtime.slot(locator.slot, guest.era)
    puller = slot.puller(guest.era, guest.mailbox, remember=False)
    await puller.read()
    first = guest.taken_by_another()
    await guest.ask(slot, runtime.entropy, runtime.clock.wall())
    if first:
        await _tell_anyway(runtime, slot, guest.era)
        raise UsageError(f"this invite was used by {first}; ask for a new one")
    gift = await _wait(runtime, guest, puller, on_wait)
    return await _enter(runtime, guest, gift, locator.slot)


async def _tell_anyway(runtime: DeviceRuntime, slot: Slot, era: Era) -> None:
    """The inviter and whoever was first hear who came late."""
    try:
        async with runtime.clock.real_timeout(REFUSAL_S):
            await slot.uploader.reach(Stage.STORED, [era.tag])
    except TimeoutError:
        return


async def _wait(
    runtime: DeviceRuntime, guest: Guest, puller: Puller, on_wait: Callable[[], None]
) -> InviteGift:
    while True:
        gift = guest.gift()
        if gift is not None:
            return gift
        if runtime.clock.wall() > guest.invite.expires_at:
            raise OperationFault(
                "nobody answered before the invite ran out; the inviter's device must be running"
                " `folder invite` or `folder sync --watch`: ask for a new invite",
                retryable=False,
            )
        on_wait()
        await runtime.clock.sleep_real(POLL_S)
        try:
            await puller.read()
        except OperationFault:
            continue


async def _enter(runtime: DeviceRuntime, guest: Guest, gift: InviteGift, slot: bytes) -> Group:
    """Be in the group: remember it, read it, note it in the keyring."""
    key = GroupKey(
        id=gift.group,
        kind=gift.kind,
        name=_unused_name(runtime, gift),
        era=gift.era_number,
        secret=gift.era_secret,
        slot=slot,
        joined_at=runtime.clock.wall(),
    )
    runtime.state.keep_group(key)
    guest.joined()
    group = await runtime.open_group(key)
    await group.read(everywhere=True)
    await admit_devices(runtime, group)
    await publish_wrap(runtime, group)
    await note_groups(runtime)
    await keep_records(runtime)
    return group


def _unused_name(runtime: DeviceRuntime, gift: InviteGift) -> str:
    """The inviter's name for the group, unless another group here has it."""
    names = {key.name for key in runtime.state.groups() if key.id != gift.group}
    return gift.name if gift.name not in names else f"{gift.name} {gift.group.hex()[:8]}"
