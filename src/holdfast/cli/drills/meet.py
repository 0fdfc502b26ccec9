"""`holdfast drill meet`: three devices find each other with nothing but each other.

Three processes, each in a network namespace of its own on one bridge: no headquarters, no relay, no
name service, no default route. They pair in pairs, exchange blobs over standing connections, are
scanned, then two move to new addresses at the same moment and have only the third to ask.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Annotated, Final

import cyclopts
import msgspec

from holdfast.cli.drills.inside import go_inside
from holdfast.cli.drills.meet_device import Order, Told
from holdfast.cli.drills.play import Keep, play
from holdfast.cli.service import clock_of
from holdfast.errors import OperationFault, UsageError
from holdfast.limits.peers import WINDOW_PERIOD_S
from holdfast.rim.portscan import bound, default_routes, scan
from holdfast.rim.process import Child, holdfast_command, spawn
from holdfast.sim.meeting import runs

NET: Final = "10.77"
PAIR_PORT: Final = 4711
SCANNER: Final = f"{NET}.255.254"
START_S: Final = 60.0
POLL_S: Final = 0.05
QUIET_S: Final = 10.0
"""No window begins that soon; what is scanned in longer than that is scanned again."""
CHUNK_PORTS: Final = 4_096
"""Scanned at once, between two windows: half a second, or some on a busy machine."""
BESIDE: Final = 200
"""Ports on either side of the open one that the control scans: all of them take longer than a
window of scaled time lasts."""


class MeetReport(msgspec.Struct):
    """Times are real seconds; windows ran `scale` times faster than in earnest."""

    scale: float
    found_s: float = -1.0
    """From the move of two until they had found each other."""
    lost_without_third: bool = False
    """Control: without the third at its old address they do not meet within three periods."""
    open_ports: int = -1
    """TCP and UDP, of all 65,535 of each, between windows, on all three devices."""
    open_in_window: int = 0
    """Control: devices at which the same scan finds the port inside a window."""
    missed: int = -1
    missed_control: int = 0
    """Simulated meetings that failed, with tolerance and without."""
    simulated: int = 0
    paired: int = 0
    connected_s: float = 0.0
    synced: bool = False
    routes: int = -1
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Whether everything the drill checks did hold."""
        found = 0 <= self.found_s <= 60 and self.lost_without_third
        quiet = self.open_ports == 0 and self.open_in_window >= 1
        clocks = self.missed == 0 and self.missed_control > 0
        return found and quiet and clocks and self.paired == 3 and self.synced and not self.routes


class Device:
    """A device process and where it is."""

    def __init__(self, number: int, child: Child[Told]) -> None:
        self.number = number
        self.child = child
        self.key = b""
        self.host = ""

    async def ask(self, order: Order) -> Told:
        """One answer. Raises OperationFault."""
        await self.child.send(order)
        return await self.answer()

    async def answer(self) -> Told:
        """The next answer."""
        told = await self.child.receive()
        if told is None or told.fault:
            raise OperationFault(f"device {self.number}: {told.fault if told else 'is gone'}")
        return told

    async def move(self, host: str) -> None:
        """Take another address."""
        old, self.host = self.host, host
        inside = "ip addr flush dev eth0 && " if old else ""
        inside += f"ip addr add {host}/16 dev eth0"
        await run("nsenter", "-t", str(self.child.pid), "-n", "sh", "-c", inside)


class Meet:
    """The drill, inside a namespace."""

    def __init__(self, home: Path, scale: float, simulated: int) -> None:
        self._home = home
        self._scale = scale
        self._clock = clock_of(1.0)
        self._devices: list[Device] = []
        self._report = MeetReport(scale, simulated=simulated)

    async def run(self) -> MeetReport:
        """All of it."""
        began, report = self._clock.elapsed(), self._report
        try:
            await self._start()
            await self._pair()

            report.connected_s = await self._until_met(self._devices)
            if report.connected_s < 0:
                raise OperationFault("the devices did not find each other at their first addresses")
            await self._sync("before the move")
            await self._scan()

            first, second, third = self._devices
            await asyncio.gather(first.move(f"{NET}.9.1"), second.move(f"{NET}.9.2"))
            report.found_s = await self._until_met([first, second])
            if report.found_s >= 0:
                await self._sync("after the move")
            third.child.kill()
            await asyncio.gather(first.move(f"{NET}.8.1"), second.move(f"{NET}.8.2"))
            report.lost_without_third = await self._never_met(first, second)
        finally:
            for device in self._devices:
                device.child.kill()
        report.missed = await asyncio.to_thread(runs, report.simulated, 1)
        report.missed_control = await asyncio.to_thread(runs, report.simulated, 1, tolerant=False)
        report.seconds = round(self._clock.elapsed() - began, 1)
        return report

    async def _start(self) -> None:
        await run("ip", "link", "add", "br0", "type", "bridge")
        await run("ip", "link", "set", "br0", "up")
        await run("ip", "addr", "add", f"{SCANNER}/16", "dev", "br0")
        for number in (1, 2, 3):
            home = self._home / f"device-{number}"
            home.mkdir(parents=True)
            words = ("drill", "meet-device", f"--dir={home}", f"--name=device {number}")
            command = holdfast_command(*words, f"--scale={self._scale}")
            inside = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
            child = await spawn((*inside, *command), log=home / "log", kind=Told)
            device = Device(number, child)
            self._devices.append(device)
            device.key = (await device.answer()).device
            wire = ("ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0")
            await run(*wire, "netns", str(child.pid))
            await run("ip", "link", "set", f"v{number}", "master", "br0", "up")
            up = ("nsenter", "-t", str(child.pid), "-n", "ip", "link", "set", "eth0", "up")
            await run(*up)
            await device.move(f"{NET}.0.{number}")
        self._report.routes = sum(default_routes(d.child.pid) for d in self._devices)

    async def _pair(self) -> None:
        for one, other in ((0, 1), (0, 2), (1, 2)):
            host, guest = self._devices[one], self._devices[other]
            where = f"{host.host}:{PAIR_PORT}"
            said = (await host.ask(Order("host", where))).text
            met, same = await asyncio.gather(host.answer(), guest.ask(Order("guest", said)))
            self._report.paired += met.text == same.text and met.device == guest.key

    async def _until_met(self, devices: list[Device]) -> float:
        """Wait until all of these are connected from where they are now; how long it took,
        negative when they are not in time."""
        began, wait_s = self._clock.elapsed(), max(START_S, 6 * WINDOW_PERIOD_S / self._scale)
        while self._clock.elapsed() < began + wait_s:
            if await self._met(devices):
                return round(self._clock.elapsed() - began, 2)
            await self._clock.sleep_real(POLL_S)
        return -1.0

    async def _met(self, devices: list[Device]) -> bool:
        for device in devices:
            links = (await device.ask(Order("status"))).links
            others = [other.key for other in devices if other is not device]
            if any(links.get(key) != device.host for key in others):
                return False
        return True

    async def _never_met(self, first: Device, second: Device) -> bool:
        ends_at = self._clock.elapsed() + 3 * WINDOW_PERIOD_S / self._scale
        while self._clock.elapsed() < ends_at:
            if await self._met([first, second]):
                return False
            await self._clock.sleep_real(POLL_S)
        return True

    async def _sync(self, text: str) -> None:
        """What each writes, all have afterwards, under the same ids."""
        for device in self._devices:
            await device.ask(Order("put", f"{text}, by {device.number}"))
        for device in self._devices:
            links = (await device.ask(Order("status"))).links
            for key in links:
                await device.ask(Order("pull", peer=key))
        held = [set((await device.ask(Order("status"))).blobs) for device in self._devices[:2]]
        self._report.synced = held[0] == held[1] and len(held[0]) >= 3

    async def _scan(self) -> None:
        """All ports of each device right after a window, and around the port inside one."""
        found = await asyncio.gather(*(self._scan_one(device) for device in self._devices))
        self._report.open_ports = sum(shut for shut, _ in found)
        self._report.open_in_window = sum(opened for _, opened in found)

    async def _scan_one(self, device: Device) -> tuple[int, bool]:
        shut = await self._scan_shut(device)
        told = await device.ask(Order("open"))
        near = [range(port - BESIDE, port + BESIDE) for port in told.ports]
        return shut, bool(near) and told.ports[0] in await scan(device.host, near[0])

    async def _scan_shut(self, device: Device) -> int:
        """How many ports, TCP and UDP, of all there are, are open while no window is."""
        found, ends_at, took_s = 0, 0.0, 0.0
        chunks = [
            range(first, min(first + CHUNK_PORTS, 65_536))
            for first in range(1, 65_536, CHUNK_PORTS)
        ]
        while chunks:
            if self._clock.elapsed() + 2 * took_s >= ends_at:
                ends_at = self._clock.elapsed() + QUIET_S
                await device.ask(Order("shut", str(QUIET_S)))
                ends_at = max(ends_at, self._clock.elapsed())
            began = self._clock.elapsed()
            open_now = len(await scan(device.host, chunks[-1]))
            open_now += len(bound(device.child.pid, "udp"))
            took_s = self._clock.elapsed() - began
            if self._clock.elapsed() < ends_at:
                found += open_now
                chunks.pop()
        return found


async def run(*command: str) -> None:
    """Raises OperationFault when a command fails."""
    child: Child[None] = await spawn(command)
    if await child.wait():
        raise OperationFault(f"{' '.join(command)} failed")


def meet(
    *,
    scale: Annotated[float, cyclopts.Parameter(help="Windows this many times faster.")] = 30.0,
    simulated: int = 1_000,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """Three devices without any server: pair, be scanned, move two at once, be found again.

    Parameters
    ----------
    simulated
        Meetings of two wrong clocks, in simulation.
    json
        One JSON object as the last line.
    """
    if not 1 <= scale <= 60:
        raise UsageError("--scale is 1 to 60")
    if shutil.which("nsenter") is None:
        raise UsageError("this drill needs nsenter (Debian: util-linux)")
    go_inside()
    return play("meet", lambda home: Meet(home, scale, simulated).run(), keep=keep, json=json)
