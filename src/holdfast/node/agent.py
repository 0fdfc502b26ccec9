"""The agent: drives `node.machine` against the role's process and headquarters.

Loops beside each other, none of which waits for another:

| loop       | does                                                                           |
|------------|--------------------------------------------------------------------------------|
| role       | keeps the role's process running; takes what it says                           |
| heartbeats | figures to HQ every `heartbeat_s` (elapsed) while the role serves              |
| desires    | long poll of what HQ wants; remembered, then applied                           |
| alerts     | what the role raised, one by one, until HQ has it                              |
| accuses    | peers that the role caught lying, the newest word on each                      |
| witnessing | cosigns HQ's log as long as it only grows (`node.witnessing`)                  |
| usages     | what an entry or a core counted, until HQ has it                               |
| front      | of an entry or a core: carries calls, keeps a copy (`node.front`)              |
| renewals   | at day 30 a certificate with a new key, while serving (D6)                     |
| upgrading  | the release that HQ wants, and back when it is no good (`node.upgrading`)      |

HQ may be gone for months: every call backs off with jitter and nothing else depends on it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast import __version__
from holdfast.crypto.pure import base32
from holdfast.errors import RETIRED_STATUS, HoldfastError, OperationFault, PeerFault
from holdfast.logic.effects import Effects
from holdfast.logic.fleet.model import ACCESS, Load, Version
from holdfast.logic.trust.cert_life import CertLife, Renew, phase_of
from holdfast.logic.trust.revocation import matches
from holdfast.node.home import Home, Member, Report
from holdfast.node.machine import Machine, Phase
from holdfast.node.membership import (
    connect,
    exclusion,
    fold_revocations,
    known_revocations,
    life_of,
    renew,
)
from holdfast.node.role import RoleProcess
from holdfast.node.upgrading import Upgrading
from holdfast.node.witnessing import Witnessing
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.loopback import is_loopback
from holdfast.rim.usage import MachineMeter
from holdfast.wire.access import UsageReceipt, UsageReport
from holdfast.wire.control import (
    Accuse,
    Apply,
    Certificates,
    Counted,
    FromRole,
    Fronted,
    Raise,
    Ready,
    Status,
    Stop,
    Used,
    Warm,
)
from holdfast.wire.hq import Accusation, Alert, Desired, Heartbeat, HeartbeatReply
from holdfast.wire.pool import Empty
from holdfast.wire.records import Revocations
from holdfast.wire.signed import Type, decode_body
from holdfast.wire.versions import WIRE, at_wire, common

if TYPE_CHECKING:
    from holdfast.node.front import Front

BACKOFF_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Real seconds between calls that fail, times a jitter of 0.5 to 1.5."""
POLL_TIMEOUT_S: Final = 75.0
"""HQ answers a long poll within a minute; this is what a dead one costs."""
POLL_WAIT_S_MIN: Final = 1.0
"""A poll that answers sooner with nothing new is slowed down: no HQ may make us spin."""
RENEWAL_S_MIN: Final = 1.0
RENEWAL_S_MAX: Final = 3_600.0
"""Real seconds between looks at the certificate: the wall clock may be stepped meanwhile (D30)."""
REPORT_S: Final = 5.0

RoleCommand = Callable[[Home, Member], Sequence[str]]
StartRole = Callable[[Home, Member], Awaitable[RoleProcess]]
"""Raises OperationFault."""

_log = logging.getLogger("holdfast.node")


class Agent:
    """One node that has joined. `run` is its life."""

    def __init__(
        self,
        home: Home,
        member: Member,
        *,
        role_command: RoleCommand,
        clock: Clock,
        entropy: Entropy,
        first_role: StartRole | None = None,
    ) -> None:
        """`first_role` gives the first run of the role, where a process waits for it already."""
        self._home = home
        self._member = member
        self._role_command = role_command
        self._first_role = first_role
        self._revoked = known_revocations(home, member)
        """Grows while this process runs: no headquarters on it is dialled or followed."""
        self._hq = connect(home, member, clock, self._revoked)
        self._clock = clock
        self._entropy = entropy
        self.machine = Machine(member.role, home.memory())
        self._meter = MachineMeter()
        self._role: RoleProcess | None = None
        self._certificate = home.certificate()
        self._life = CertLife(life_of(self._certificate))
        self._serving = asyncio.Event()
        self._alerted = asyncio.Event()
        self._accusations: dict[bytes, Accusation] = {}
        self._accused = asyncio.Event()
        self._usage: UsageReport | None = None
        self._used = asyncio.Event()
        self._heard_at = 0.0
        self.front = self._make_front(entropy)
        self.witnessing = Witnessing(home, member, self._hq, clock, entropy)
        desired = self.machine.memory.desired
        self._hq_wire = common(desired.wire) if desired is not None else 1
        """The node wire of whichever HQ answered last."""
        self.upgrading = Upgrading(home, member, self._hq, clock, self._command, self._give_way)
        self.upgrading.kill = self._kill_role
        self.upgrading.want(desired)

    def _make_front(self, entropy: Entropy) -> Front | None:
        """Entries and cores carry calls for headquarters."""
        if self._member.role not in ACCESS:
            return None
        from holdfast.node.front import Front  # a web server, which others never load

        return Front(
            self._home, self._member, self._clock, entropy, self._moved, revocations=self._revoked
        )

    def _moved(self, member: Member) -> None:
        """Headquarters is elsewhere."""
        self._member = member
        self._hq.redirect(member.hq)

    async def _exclude(self, desired: Desired) -> None:
        """Heed what HQ says of other headquarters, before anything else of it."""
        fresh = fold_revocations(self._revoked, desired)
        if not fresh:
            return
        self._hq.cut(lambda peer: any(matches(fresh, each) for each in peer.certificates))
        if self.front is not None:
            await self.front.exclude(fresh)

    async def run(self) -> int:
        """Serve until cancelled, or until HQ retires or revokes this node: then RETIRED_STATUS."""
        _log.info("%s, node %s", self._member.name, base32(self._member.node))
        if self.front is not None:
            await self.front.start()
        loops = (
            self._heartbeats(),
            self._desires(),
            self._alerts(),
            self._accuse(),
            self._renewals(),
            self._reports(),
            self._usages(),
            self.witnessing.run(),
            *((self.front.run(),) if self.front is not None else ()),
            self.upgrading.run(),
        )
        tasks = [asyncio.create_task(loop) for loop in loops]
        role = asyncio.create_task(self._keep_role())
        try:
            await asyncio.wait((role, *tasks), return_when=asyncio.FIRST_COMPLETED)
            for task in (role, *tasks):
                if task.done():
                    task.result()
            return RETIRED_STATUS
        finally:
            for task in (role, *tasks):
                task.cancel()
            await asyncio.gather(role, *tasks, return_exceptions=True)
            if self._role is not None:
                await self._role.stop()
            if self.front is not None:
                await self.front.stop()
            await self.upgrading.close()
            await self._hq.close()
            self._report()

    # --- the role --------------------------------------------------------------------------------
    async def _keep_role(self) -> None:
        """Run the role, again and again, until this node is retired."""
        while self.machine.phase is not Phase.RETIRED:
            role = self._role = self.upgrading.take() or await self._start_role()
            if role is not None and self.upgrading.replacing:
                await role.send(Stop())  # its successor got warm while it was being started
            status = await self._follow_role()
            self._serving.clear()
            if self.upgrading.replacing:
                await self._obey(self.machine.replaced())
                continue
            self.upgrading.exited(status, role.release if role is not None else None)
            effects = self.machine.exited(status, self._clock.elapsed())
            await self._obey(effects)
            self._report()
            for delay in effects.timers:
                await self._clock.sleep(delay)
        _log.info("retired by headquarters")

    def _command(self) -> Sequence[str]:
        return self._role_command(self._home, self._member)

    async def _start_role(self) -> RoleProcess | None:
        """The role from the release in use, which may wait for it already; None when it cannot be
        started at all."""
        upgrading = self.upgrading
        first, self._first_role = self._first_role, None
        try:
            if first is not None and not upgrading.trial.running:
                return await first(self._home, self._member)
            return await RoleProcess.start(
                self._command(),
                self._clock,
                upgrading.environment(),
                upgrading.wire(),
                upgrading.trial.running,
            )
        except OperationFault as fault:
            _log.error("%s", fault)
            return None

    async def _give_way(self, successor: RoleProcess) -> None:
        """A role waits for the place of the one that serves: tell both."""
        if self.machine.memory.desired is not None:
            await successor.send(Apply(self.machine.memory.desired))
        if self._role is not None:
            await self._role.send(Stop())

    def _kill_role(self) -> None:
        if self._role is not None:
            self._role.kill()

    async def _follow_role(self) -> int:
        """Talk with the role until it ends; its exit status."""
        role = self._role
        if role is None:
            self.machine.started()
            return -1
        if self.front is not None:
            await role.send(Fronted(self.front.port))
        await self._obey(self.machine.started())
        async for message in role.messages():
            try:
                await self._heed(message)
            except PeerFault as fault:
                _log.error("the role broke its word: %s", fault)
                break
        status = await (role.end() if self.machine.phase is Phase.RETIRED else role.stop())
        self._role = None
        return status

    async def _heed(self, message: FromRole) -> None:
        if isinstance(message, Ready):
            await self._obey(self.machine.ready(message, self._clock.elapsed()))
            _log.info("serving at %s", ", ".join(self._told()))
            if self._role is not None:
                self.upgrading.ready(self._role.release)
            self._serving.set()
            self._report()
        elif isinstance(message, Status):
            await self._obey(self.machine.status(message))
        elif isinstance(message, Accuse):
            self._accusations[message.accusation.node] = message.accusation
            self._accused.set()
        elif isinstance(message, Used):
            self._usage = message.report
            self._used.set()
        elif isinstance(message, Warm):
            raise PeerFault("a role that nobody asked to take over is warm")
        else:
            assert isinstance(message, Raise)
            await self._obey(self.machine.raised(message.alert))
            self._alerted.set()

    async def _obey(self, effects: Effects) -> None:
        """Persist, then send: in that order, and no await between two persists."""
        for memory in effects.persist:
            self._home.save_memory(memory)
        for line in effects.audit:
            _log.warning("%s %s %s", line.verb, line.subject, line.detail)
        for message in effects.send:
            if self._role is not None:
                await self._role.send(message)

    # --- headquarters ----------------------------------------------------------------------------
    async def _heartbeats(self) -> None:
        while True:
            await self._serving.wait()
            try:
                beat = at_wire(self._heartbeat(), self._hq_wire)
                await self._hq.call("POST", "/v1/heartbeat", beat, HeartbeatReply)
                self._heard_at = self._clock.wall()
            except HoldfastError as error:
                _log.info("heartbeat: %s", error)
            await self._clock.sleep(self._member.heartbeat_s)

    def _heartbeat(self) -> Heartbeat:
        machine = self.machine
        return Heartbeat(
            term=machine.term,
            desired=machine.desired_version,
            revocations=self._revocations(),
            load=self._load(),
            addresses=self._told(),
            cert_serial=self._certificate.serial,
            cert_expires_at=self._certificate.not_after,
            filled=machine.filled,
            filled_of=machine.filled_of,
            version=__version__,
            release=self.upgrading.trial.running,
            proved=self.upgrading.trial.is_proved,
            refused=self.upgrading.trial.kept.refused,
            refused_why=self.upgrading.trial.kept.why,
            deferred_until=self.upgrading.deferred_until(),
        )

    def _load(self) -> Load:
        """What the role says, and what the machine does beside it. Servers that share one machine
        on its loopback addresses have none of their own to speak of."""
        load, told = self.machine.load, self._told()
        usage = self._meter.take()
        if all(is_loopback(address) for address in told):
            return load
        return msgspec.structs.replace(
            load,
            busy=load.busy or round(usage.busy, 2),
            received_bytes_per_s=round(usage.received_bytes_per_s),
            sent_bytes_per_s=round(usage.sent_bytes_per_s),
        )

    def _told(self) -> tuple[str, ...]:
        """What clients are told: the member's addresses, once the role serves."""
        serving = self.machine.addresses
        return (self._member.addresses or serving) if serving else ()

    def _revocations(self) -> Version:
        """The version of the revocation list that the role was given last."""
        desired = self.machine.memory.desired
        if desired is None or desired.revocations is None:
            return Version(0, 0)
        return decode_body(Type.REVOCATIONS, Revocations, desired.revocations.signed).version

    async def _is_excluded(self) -> bool:
        """Whether HQ refuses us because we are on its revocation list: then it is over."""
        try:
            entry = await exclusion(self._home, self._member, self._clock)
        except HoldfastError as error:
            _log.info("revocations: %s", error)
            return False
        if entry is not None:
            text = "headquarters has revoked this node (%s); a new machine joins in a new --dir"
            _log.error(text, entry.reason)
        return entry is not None

    async def _desires(self) -> None:
        """Until this node is revoked."""
        failures = 0
        while True:
            asked_at = self._clock.elapsed()
            path = f"/v1/desired?after={self.machine.desired_version}&wire={WIRE}"
            try:
                desired = await self._hq.call("GET", path, None, Desired, timeout_s=POLL_TIMEOUT_S)
                self._heard_at = self._clock.wall()
                self._hq_wire = common(desired.wire)
                await self._exclude(desired)
                effects = self.machine.desire(desired)
                await self._obey(effects)
                self.upgrading.want(self.machine.memory.desired)
                waited = (self._clock.elapsed() - asked_at) / self._clock.scale
                if effects.persist or waited >= POLL_WAIT_S_MIN:
                    failures = 0
                    continue
            except HoldfastError as error:
                _log.info("desired: %s", error)
                if isinstance(error, PeerFault) and await self._is_excluded():
                    return
            failures += 1
            await self._back_off(failures)

    async def _alerts(self) -> None:
        failures = 0
        while True:
            alert = self.machine.next_alert()
            if alert is None:
                self._alerted.clear()
                await self._alerted.wait()
            elif await self._deliver(alert):
                failures = 0
            else:
                failures += 1
                await self._back_off(failures)

    async def _deliver(self, alert: Alert) -> bool:
        """Whether HQ has this alert now, or will never take it."""
        try:
            await self._hq.call("POST", "/v1/alerts", alert, Empty)
        except OperationFault as fault:
            _log.info("alert of %s: %s", alert.name, fault)
            return False
        except HoldfastError as error:
            _log.warning("HQ refuses the alert of %s: %s", alert.name, error)
        await self._obey(self.machine.delivered(alert))
        return True

    async def _accuse(self) -> None:
        """What HQ does not hear is dropped: the role says it again while the peer lies."""
        while True:
            await self._accused.wait()
            self._accused.clear()
            said, self._accusations = self._accusations, {}
            for accusation in said.values():
                try:
                    await self._hq.call("POST", "/v1/accusations", accusation, Empty)
                except HoldfastError as error:
                    _log.info("accusation of %s: %s", accusation.name, error)

    async def _usages(self) -> None:
        """Tell HQ what the role counted, the newest report only: counters hold what came before."""
        failures = 0
        while True:
            await self._used.wait()
            self._used.clear()
            report = self._usage
            assert report is not None, "set before the event"
            try:
                receipt = await self._hq.call("POST", "/v1/access/usage", report, UsageReceipt)
            except OperationFault as fault:
                _log.info("usage: %s", fault)
                failures += 1
                await self._back_off(failures)
                self._used.set()
                continue
            except HoldfastError as error:
                _log.warning("HQ refuses a usage report: %s", error)
                continue
            failures = 0
            if self._role is not None:
                await self._role.send(Counted(receipt.sequence))

    async def _back_off(self, failures: int) -> None:
        wait = BACKOFF_S[min(failures, len(BACKOFF_S)) - 1]
        await self._clock.sleep_real(wait * self._entropy.uniform(0.5, 1.5))

    # --- certificates ----------------------------------------------------------------------------
    async def _renewals(self) -> None:
        """Drive the certificate's life: ask when it is due, again with growing waits, loudly."""
        while True:
            effects = self._life.tick(self._clock.wall())
            for message in effects.send:
                if isinstance(message, Renew):
                    effects += await self._try_renewal()
            await self._obey(Effects(audit=effects.audit))
            wait_s = min(effects.timers, default=0.0) - self._clock.wall()
            await self._clock.sleep_real(min(max(wait_s, RENEWAL_S_MIN), RENEWAL_S_MAX))

    async def _try_renewal(self) -> Effects:
        try:
            await self.renew_now()
        except HoldfastError as error:
            _log.warning("renewal: %s", error)
            return self._life.failed(self._clock.wall(), self._entropy.uniform(0.0, 1.0))
        return self._life.renewed(life_of(self._certificate))

    async def renew_now(self) -> None:
        """A new certificate with a new key, in use before this returns; connections stay."""
        self._certificate = await renew(
            self._home, self._member, self._hq, clock=self._clock, entropy=self._entropy
        )
        if self.front is not None:
            self.front.reload()
        if self._role is not None:
            await self._role.send(Certificates())

    # --- for people ------------------------------------------------------------------------------
    async def _reports(self) -> None:
        while True:
            self._report()
            await self._clock.sleep_real(REPORT_S)

    def _report(self) -> None:
        machine, member = self.machine, self._member
        report = Report(
            pid=os.getpid(),
            name=member.name,
            node=base32(member.node),
            role=member.role,
            phase=machine.phase,
            addresses=self._told(),
            desired=machine.desired_version,
            term=machine.term,
            draining=machine.draining,
            alerts_waiting=len(machine.memory.alerts),
            certificate=phase_of(self._life.certificate, self._clock.wall()),
            cert_expires_at=self._certificate.not_after,
            hq_heard_at=self._heard_at,
            written_at=self._clock.wall(),
            log_size=self.witnessing.size,
            log_trouble=self.witnessing.trouble,
            release=self.upgrading.trial.running.hex(),
            release_note=self.upgrading.note(),
        )
        try:
            self._home.write_report(report)
        except OperationFault as fault:
            _log.warning("%s", fault)
