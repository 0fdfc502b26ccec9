"""Carrying a release out: the driver of `node.trial` beside the agent (ADR 0041).

The new role starts while the old one serves, loads everything, says that it is warm, and waits
for the data. Only then is the old one asked to go: what clients miss is the time between the last
answer of one and the first of the other, and they have two other servers. A release that cannot
even start costs nobody a request.

The agent itself is not part of it: it stays as it is installed, speaks node wire to both, and so
can always go back.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from holdfast.errors import HoldfastError, OperationFault, PeerFault
from holdfast.limits.upgrade import (
    FETCH_WAITS_REAL_S,
    PROVE_REAL_S_MIN,
    PROVE_S,
    READY_REAL_S,
    UNSERVED_MAX,
)
from holdfast.logic.trust.revocation import Presented, Revoked, matches
from holdfast.node.home import Home, Member
from holdfast.node.releases import KNOBS, Releases
from holdfast.node.role import RoleProcess
from holdfast.node.trial import OWN, Stage, Trial
from holdfast.rim.clock import Clock
from holdfast.rim.https_client import JsonClient
from holdfast.wire.control import AGENT_WIRE, KNOBS_FILE, TAKE_OVER
from holdfast.wire.hq import Desired
from holdfast.wire.records import Revocations, Staple
from holdfast.wire.release import ReleaseId, release_id
from holdfast.wire.signed import Type, decode_body
from holdfast.wire.versions import WIRE, common

TICK_REAL_S: Final = 0.25
FETCH_TIMEOUT_S: Final = 60.0
_log = logging.getLogger("holdfast.node.upgrading")

Command = Callable[[], Sequence[str]]


class Upgrading:
    """One node's releases. The agent asks it what to start and tells it what becomes of it."""

    def __init__(
        self,
        home: Home,
        member: Member,
        hq: JsonClient,
        clock: Clock,
        command: Command,
        give_way: Callable[[RoleProcess], Awaitable[None]],
    ) -> None:
        """`give_way` is told of a warm role: the one that serves must go."""
        self.releases = Releases(home)
        self._member = member
        self._hq = hq
        self._clock = clock
        self._command = command
        self._give_way = give_way
        prove_s = max(PROVE_S, PROVE_REAL_S_MIN * clock.scale)
        self.trial = Trial(self.releases.kept(), prove_s, READY_REAL_S * clock.scale)
        self._desired: Desired | None = None
        self._warm: RoleProcess | None = None
        self._unsaved = False
        self._trouble = ""
        """Why what is wanted cannot be had yet."""
        self._served = False
        self._unserved = 0
        self._fallen = False
        """A damaged release was given up, and what is installed has not served yet."""
        self.kill: Callable[[], None] = lambda: None
        """Ends the role that runs; the agent sets it."""

    # --- Told by the agent -----------------------------------------------------------------------
    def want(self, desired: Desired | None) -> None:
        """HQ's newest word. One of an HQ that knows nothing of releases changes nothing."""
        self._desired = desired
        if desired is None or desired.wire < 2:
            return
        release = release_id(desired.release) if desired.release is not None else OWN
        if release != self.trial.wanted:
            self._fallen = False
        if self.trial.want(release):
            self._keep()

    def take(self) -> RoleProcess | None:
        """The role that waits for its place, once."""
        role, self._warm = self._warm, None
        if role is not None:
            self.trial.adopted(self._clock.elapsed())
        return role

    @property
    def replacing(self) -> bool:
        """Whether a role waits for the place of the one that runs."""
        return self._warm is not None

    def environment(self) -> dict[str, str]:
        """Variables under which a role starts from the release that is in use."""
        return self._environment(self.trial.running)

    def wire(self) -> int:
        """The node wire to speak with a role that starts now."""
        return self._wire(self.trial.running)

    def ready(self, release: ReleaseId) -> None:
        """The role that was started from `release` serves."""
        if release != self.trial.running:
            return  # of a role that is about to go
        self._served, self._unserved, self._fallen = True, 0, False
        self.trial.ready(self._clock.elapsed())

    def exited(self, status: int, release: ReleaseId | None) -> None:
        """The role that was started from `release` ended and was not asked to; None: there was
        none, it could not be started."""
        served, self._served = self._served, False
        if release is not None and release != self.trial.running:
            return
        if self.trial.stage is Stage.STEADY and not served and release is not None:
            self._unserved += 1
            if self._unserved >= UNSERVED_MAX:
                self._fall_back()
        stage = self.trial.stage
        verb = "did not serve" if stage is Stage.TRYING else "served and died"
        if stage in (Stage.TRYING, Stage.PROVING):
            self._failed(f"its role {verb}, status {status}")

    # --- Told to others --------------------------------------------------------------------------
    def deferred_until(self) -> float:
        """The owner's word, Unix seconds; a damaged file is said, and puts nothing off."""
        try:
            return self.releases.deferred_until()
        except OperationFault as fault:
            _log.error("%s", fault)
            return 0.0

    def note(self) -> str:
        """What the owner should know; empty when all is as headquarters wants it."""
        trial, now = self.trial, self._clock.wall()
        if trial.kept.refused:
            return f"went back from release {trial.kept.refused.hex()[:12]}: {trial.kept.why}"
        if self._trouble:
            return f"another release cannot be had yet: {self._trouble}"
        until = self.deferred_until()
        if trial.wanted == trial.running or now >= until:
            return ""
        required_at = self._desired.release_required_at if self._desired is not None else 0.0
        required = required_at and now >= required_at
        what = "headquarters requires another release" if required else "there is another release"
        return f"{what}; this node puts upgrades off (holdfast node defer --days 0 ends that)"

    # --- The loop --------------------------------------------------------------------------------
    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._tick()
            except HoldfastError as error:
                _log.error("%s", error)
            await self._clock.sleep_real(TICK_REAL_S)

    async def close(self) -> None:
        """End a role that still waits."""
        if self._warm is not None:
            await self._warm.stop()

    async def _tick(self) -> None:
        trial, now = self.trial, self._clock.elapsed()
        if self._unsaved:
            self._keep()
        if trial.overdue(now):
            _log.error("the role of release %s does not serve in time", _short(trial.running))
            self.kill()
        if trial.proved(now):
            _log.info("release %s is trusted now", _short(trial.running))
            self._keep()
            if not self._unsaved:
                kept = trial.kept
                self.releases.prune(kept.good, kept.before, trial.running, trial.wanted)
        wish = trial.wish()
        if (
            wish is not None
            and not self._fallen
            and (wish == trial.kept.good or not self._defers())
        ):
            await self._go(wish)

    def _defers(self) -> bool:
        return self._clock.wall() < self.deferred_until()

    async def _go(self, release: ReleaseId) -> None:
        self.trial.begin(release)
        _log.info("going to release %s", _short(release))
        try:
            has = await self._fetched(release)
        except HoldfastError as error:
            self._failed(f"it cannot be had: {error}")
            return
        if not has:
            self.trial.put_off()
            return
        self.trial.fetched()
        try:
            role = await self._start_warm(release)
        except HoldfastError as fault:
            self._failed(f"it does not start: {fault}")
            return
        self._warm = role
        self.trial.warm()
        await self._give_way(role)

    async def _start_warm(self, release: ReleaseId) -> RoleProcess:
        """A role that has loaded everything. Raises OperationFault for one that has not."""
        variables = {**self._environment(release), TAKE_OVER: "1"}
        role = await RoleProcess.start(
            self._command(), self._clock, variables, self._wire(release), release
        )
        try:
            if await role.warm(READY_REAL_S):
                return role
        except BaseException:
            await role.stop()
            raise
        raise OperationFault(f"it ended before it was warm, status {await role.stop()}")

    async def _fetched(self, release: ReleaseId) -> bool:
        """Whether it is on the disk: tried until it is, or is not wanted any more. Raises PeerFault
        when the release itself is no good."""
        failures = 0
        try:
            while True:
                try:
                    await self._fetch(release)
                    return True
                except OperationFault as fault:
                    self._trouble = str(fault)
                    _log.warning("release %s: %s", _short(release), fault)
                await self._clock.sleep_real(
                    FETCH_WAITS_REAL_S[min(failures, len(FETCH_WAITS_REAL_S) - 1)]
                )
                failures += 1
                if self.trial.wanted != release:
                    return False
                if release != self.trial.kept.good and self._defers():
                    return False
        finally:
            self._trouble = ""

    async def _fetch(self, release: ReleaseId) -> None:
        """Have a release on the disk. Raises PeerFault and OperationFault."""
        if self.releases.has(release):
            return
        staple = self._desired.release if self._desired is not None else None
        if staple is None or release_id(staple) != release:
            raise OperationFault("headquarters wants something else by now")
        about = self.releases.check(self._member, staple, self._clock.wall(), self._revoked)
        archive = await self._archive(release)
        self.releases.install(staple, about, archive)

    async def _archive(self, release: ReleaseId) -> bytes:
        """Raises PeerFault when headquarters has no such release; OperationFault. What else is
        wrong with an answer is not the release's fault."""
        try:
            return await self._hq.fetch(f"/v1/releases/{release.hex()}", FETCH_TIMEOUT_S)
        except PeerFault as fault:
            if fault.code == "not-found":
                raise
            raise OperationFault(f"headquarters: {fault}") from fault

    def _revoked(self, certificate: Presented) -> Revoked | None:
        staple: Staple | None = self._desired.revocations if self._desired is not None else None
        if staple is None:
            return None
        listed = decode_body(Type.REVOCATIONS, Revocations, staple.signed)
        return matches(listed.entries, certificate)

    # --- Helpers ---------------------------------------------------------------------------------
    def _environment(self, release: ReleaseId) -> dict[str, str]:
        variables = {AGENT_WIRE: str(WIRE)}
        if release != OWN:
            place = self.releases.place(release)
            behind = os.environ.get("PYTHONPATH", "")
            tree = str(place / "tree")
            variables["PYTHONPATH"] = f"{tree}{os.pathsep}{behind}" if behind else tree
            variables[KNOBS_FILE] = str(place / KNOBS)
        return variables

    def _wire(self, release: ReleaseId) -> int:
        try:
            about = self.releases.about(release)
        except (OperationFault, PeerFault) as error:
            _log.error("release %s: %s", _short(release), error)
            return WIRE
        return WIRE if about is None else common(about.wire)

    def _failed(self, why: str) -> None:
        _log.error("release %s is refused: %s", _short(self.trial.target), why)
        if self.trial.failed(why):
            self._keep()

    def _fall_back(self) -> None:
        release = self.trial.distrust()
        if release == OWN:
            return
        _log.error("release %s does not serve any more; fetching it again", _short(release))
        self._unserved, self._fallen = 0, True
        self._keep()
        self.releases.remove(release)

    def _keep(self) -> None:
        """Write down what must survive; at every tick until that works."""
        try:
            self.releases.save_kept(self.trial.kept)
            self._unsaved = False
        except OperationFault as fault:
            if not self._unsaved:
                _log.error("%s", fault)
            self._unsaved = True


def _short(release: ReleaseId) -> str:
    return release.hex()[:12] or "(what is installed)"
