"""`holdfast drill provider-leak`: the key of one provider leaks.

Whoever has it makes a machine and destroys one of ours, behind headquarters' back and through the
provider's own API. Headquarters must say both within a minute of its own time, by its timeline, and
the destroyed machine must be replaced. The same key is then tried at every other provider: it must
open none. As a control one of them is given that key, and then it opens exactly that one.

The key must be nowhere in the clear at headquarters: not in its directory, its log, an argument or
an environment. It is for machines alone: it must not make itself another key. Then it is rotated,
under a running headquarters: the account's owner makes a new key, headquarters tries it and takes
it, the owner takes the former back. A key that the provider does not know must be refused before
that, with the former still in use. The leaked key must work until the end of this (control) and not
after; headquarters must heal one more destroyed machine with the new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from holdfast.cli.drills.play import Keep, play
from holdfast.cli.local import LocalNetwork
from holdfast.cli.local_files import HOST
from holdfast.cli.local_hq import HQ
from holdfast.cli.service import clock_of
from holdfast.cli.tour import ground
from holdfast.errors import HoldfastError, OperationFault, UsageError
from holdfast.hq.credential_admin import Credential, KeyOffer, Staged, Take
from holdfast.hq.vault import SEAL_KEY, Vault
from holdfast.rim.clock import Clock
from holdfast.rim.cloud.keys import provider_key
from holdfast.rim.cloud.machines import GONE
from holdfast.rim.cloud.process import ProcessCloud
from holdfast.rim.entropy import Dice, Entropy, SystemEntropy
from holdfast.rim.files import read_file, write_file
from holdfast.rim.process import descendants
from holdfast.wire.cloud import SERVERS, CreateServer

REGION: Final = "eu"
ALARM_S: Final = 60.0
WAIT_REAL_S: Final = 240.0
POLL_S: Final = 0.1
INTRUDER: Final = "mine-now"


class LeakReport(msgspec.Struct):
    """The JSON. The alarms' times are in the network's seconds, since the deed."""

    time_scale: float
    seed: int
    providers: int = 0
    spawn_alarm_s: float = -1.0
    kill_alarm_s: float = -1.0
    healed: bool = False
    others_touched: int = 0
    """Providers that the leaked key opened beside its own."""
    others_asked: int = 0
    control_touched: int = 0
    """The same, when one of them has that key."""
    key_in_clear: int = -1
    """Files of headquarters, and command lines and environments of its processes, with the key."""
    control_in_clear: int = 0
    """The same search at the provider, which keeps its account's own key in a file."""
    leaked_key_made_a_key: bool = True
    bad_key_refused: bool = False
    """A rotation to a key that the provider does not know ends with the former in use."""
    leaked_key_works_before_rotation: bool = False
    leaked_key_works_after_rotation: bool = True
    healed_after_rotation: bool = False
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Both deeds were told in time, healed, and went no further."""
        told = 0 <= self.spawn_alarm_s <= ALARM_S and 0 <= self.kill_alarm_s <= ALARM_S
        contained = not self.others_touched and self.others_asked == self.providers - 1 > 0
        rotated = (
            self.bad_key_refused
            and self.leaked_key_works_before_rotation
            and not self.leaked_key_works_after_rotation
            and self.healed_after_rotation
        )
        sealed = self.key_in_clear == 0 < self.control_in_clear
        scoped = sealed and not self.leaked_key_made_a_key
        return (
            told and self.healed and contained and self.control_touched == 1 and scoped and rotated
        )


class Leak:
    """The drill, in one empty directory. `clock` runs at the network's time scale."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy, seed: int) -> None:
        self._clock = clock
        self._entropy = entropy
        self._dice = Dice(seed)
        self._report = LeakReport(clock.scale, seed)
        self.network = LocalNetwork(
            home / "network",
            clock=clock,
            entropy=entropy,
            regions=(REGION,),
            time_scale=clock.scale,
        )

    async def run(self) -> LeakReport:
        """Raises OperationFault."""
        report, network, began = self._report, self.network, self._clock.elapsed()
        try:
            await network.start()
            report.providers = len(network.providers)
            leaked = self._dice.choice(network.providers)
            key = self._key(leaked)
            self._search(leaked, key)
            thief = self._at(leaked, key)
            victim = self._machine_at(leaked)
            started = self._clock.elapsed()
            await thief.create(CreateServer(INTRUDER, REGION, "no token of ours"))
            await self._told("machine.unknown", INTRUDER)
            report.spawn_alarm_s = round(self._clock.elapsed() - started, 1)
            started = self._clock.elapsed()
            await thief.delete(victim)
            await self._told("machine.vanished", victim.rpartition("-")[0])
            report.kill_alarm_s = round(self._clock.elapsed() - started, 1)
            report.healed = await self._healed(victim)
            others = [name for name in network.providers if name != leaked]
            report.others_asked = len(others)
            report.others_touched = await self._touched(others, key)
            report.leaked_key_made_a_key = await self._widens(thief)
            await self._rotate(leaked, thief)
            report.control_touched = await self._control(others, key)
        finally:
            await network.stop()
        report.seconds = round((self._clock.elapsed() - began) / self._clock.scale, 1)
        return report

    def _key(self, provider: str) -> str:
        """What leaked: the key that headquarters has sealed."""
        key = Vault(self.network.directory / HQ, SEAL_KEY, self._entropy).get(provider)
        if key is None:
            raise OperationFault(f"headquarters has no key of {provider}", retryable=False)
        return key

    def _search(self, provider: str, key: str) -> None:
        """Look for the key where it must not be, and for another where it is."""
        report, network = self._report, self.network
        home, logs = network.directory / HQ, network.directory / "logs"
        pid = network.pid(HQ)
        report.key_in_clear = _in_clear(key, (home, logs), (pid, *descendants(pid)))
        own = provider_key(network.provider_directory(provider), self._entropy)
        report.control_in_clear = _in_clear(own, (network.provider_directory(provider),), ())

    def _machine_at(self, provider: str) -> str:
        """One of ours that runs there."""
        machines = ground.machines(self.network)
        running = [s.name for p, _, s in machines if p == provider and s.state != GONE]
        return self._dice.choice([name for name in running if name != INTRUDER])

    def _at(self, provider: str, key: str) -> ProcessCloud:
        settings = self.network.settings
        port = settings.provider_ports[settings.providers.index(provider)]
        return ProcessCloud(f"{HOST}:{port}", key, self._clock)

    async def _told(self, verb: str, word: str) -> None:
        """Wait for the line of headquarters' timeline."""
        try:
            async with self._clock.real_timeout(WAIT_REAL_S):
                while True:
                    fleet = await self.network.fleet()
                    if any(e.verb == verb and word in e.text for e in fleet.timeline):
                        return
                    await self._clock.sleep_real(POLL_S)
        except TimeoutError:
            raise OperationFault(f"headquarters never said {verb} of {word}") from None

    async def _healed(self, victim: str) -> bool:
        """Whether its server runs on another machine and is green."""
        server = victim.rpartition("-")[0]
        try:
            async with self._clock.real_timeout(WAIT_REAL_S):
                while True:
                    running = {
                        s.name for _, _, s in ground.machines(self.network) if s.state != GONE
                    }
                    new = [n for n in running if n.rpartition("-")[0] == server and n != victim]
                    rows = {row.name: row for row in (await self.network.fleet()).servers}
                    if new and rows[server].tier.value == "green" and rows[server].addresses:
                        return True
                    await self._clock.sleep_real(POLL_S)
        except TimeoutError:
            return False

    # --- Rotation --------------------------------------------------------------------------------
    async def _widens(self, thief: ProcessCloud) -> bool:
        """Whether the key makes itself another one."""
        try:
            await thief.make_key((SERVERS,), "mine")
        except UsageError:
            return False
        return True

    async def _rotate(self, provider: str, thief: ProcessCloud) -> None:
        report, owner = self._report, self.network.provider(provider)
        former = [item.id for item in await owner.keys() if item.note.endswith(HQ)]
        report.bad_key_refused = not await self._set(provider, "f" * 64)
        made = await owner.make_key((SERVERS,), "headquarters, the second")
        report.leaked_key_works_before_rotation = await self._works(thief)
        if not await self._set(provider, made.key):
            raise OperationFault("headquarters does not take the new key", retryable=False)
        for id in former:
            await owner.revoke_key(id)
        report.leaked_key_works_after_rotation = await self._works(thief)
        victim = self._machine_at(provider)
        await owner.delete(victim)
        report.healed_after_rotation = await self._healed(victim)

    async def _set(self, provider: str, key: str) -> bool:
        """Whether headquarters takes this key, by its operator's two verbs."""
        admin, path = self.network.admin(), f"/admin/v1/credentials/{provider}"
        try:
            staged = await admin.call("POST", f"{path}/stage", KeyOffer(key), Staged)
            await admin.call("POST", f"{path}/take", Take(staged.fingerprint), Credential)
        except UsageError:
            return False
        return True

    async def _works(self, thief: ProcessCloud) -> bool:
        try:
            await thief.list()
        except UsageError:
            return False
        return True

    async def _touched(self, providers: list[str], key: str) -> int:
        """How many of them let the key in."""
        count = 0
        for name in providers:
            try:
                await self._at(name, key).list()
                count += 1
            except HoldfastError:
                continue
        return count

    async def _control(self, others: list[str], key: str) -> int:
        """The same with a key that two providers share."""
        name = others[0]
        write_file(self.network.provider_directory(name) / "key", key.encode())
        self.network.kill_provider(name)
        await self.network.start_provider(name)
        return await self._touched(others, key)


def _in_clear(key: str, directories: Sequence[Path], pids: Sequence[int]) -> int:
    """In how many files, command lines and environments a key stands as it is."""
    paths = [path for each in directories for path in each.rglob("*") if path.is_file()]
    paths += [Path(f"/proc/{pid}/{what}") for pid in pids for what in ("cmdline", "environ")]
    return sum(key.encode() in (read_file(path) or b"") for path in paths)


def provider_leak(
    *, time_scale: float = 10.0, seed: int = 1, keep: Keep = None, json: bool = False
) -> int:
    """Use one provider's key behind headquarters' back: a machine made, a machine destroyed.

    Parameters
    ----------
    time_scale
        How many of the network's seconds pass in one of yours.
    seed
        Which provider, which machine.
    json
        One JSON object as the last line.
    """
    clock = clock_of(time_scale)
    return play(
        "provider-leak",
        lambda home: Leak(home, clock, SystemEntropy(), seed).run(),
        keep=keep,
        json=json,
    )
