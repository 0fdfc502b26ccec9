"""The whole story on machines of their own, by the commands a person types (OPERATIONS.md).

    offline   root create, root issue-intermediate: no network at all
    hq        hq init, install, serve, token create, revoke; knows nobody's address beforehand
    alder, birch, cedar   two owners' machines each: node join, node run
    laptop, phone         device init, folder add, sync; device restore

Then three of the owners' machines fail: one for good (its owner is told, and brings another), one
is started again, one is shut out. Headquarters cannot respawn a machine that is not its own (D2);
what it can do is say so. The judge looks from outside: at trees of files, at the kernel's list of
sockets in each namespace, at a scan of every port, at what is left in the end.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.cli.drills.timing import Holds, until
from holdfast.cli.drills.typist import Typist
from holdfast.cli.trees import measure, mismatches
from holdfast.errors import RETIRED_STATUS, OperationFault
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Dice
from holdfast.rim.files import write_file
from holdfast.rim.process import Child, descendants
from holdfast.sim.places import LISTENING, Place, Places

NETWORK: Final = "203.0.113."
HQ_HOST: Final = NETWORK + "10"
API_PORT: Final = 7_400
OWNERS: Final = (("alder", "ann"), ("birch", "bob"), ("cedar", "cyn"))
ROLES: Final = (("relay", 7_443), ("replica", 7_444))
DOMAIN: Final = "example.net"
FILES: Final = 60
POLL_S: Final = 1.0
CUT_S: Final = 60.0
"""Real seconds for a node to learn that it is revoked."""
HEAL_S: Final = 180.0
"""Real seconds for a state of the fleet to come about."""


class HandsReport(msgspec.Struct):
    """What came of it. Times are real seconds."""

    time_scale: float
    seed: int
    commands_typed: int = 0
    namespaces: int = 0
    nodes: int = 0
    """Machines that joined, successors included."""
    files: int = 0
    files_equal: bool = False
    outbound_only: bool = False
    """Headquarters opened no connection to a node, and nothing but public ports would answer it."""
    control_seen: bool = False
    """The same judge did see connections when headquarters' machine scanned the nodes."""
    told_of_dead: bool = False
    """`hq servers` named the dead machine's owner and the command that replaces it."""
    fenced: bool = False
    """The replaced machine, started again, ended with the status of a retired node."""
    refused_revoked: bool = False
    """The revoked machine's agent ended by itself, and again when it was started again."""
    clean_stop: bool = False
    """Every process that was asked to stop ended with status 0."""
    red_s: float = 0.0
    """From the death of a machine to RED."""
    healed_s: float = 0.0
    """From RED to the successor's seat, full redundancy and green."""
    leftovers: int = 0
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        return (
            self.files_equal
            and self.outbound_only
            and self.control_seen
            and self.told_of_dead
            and self.fenced
            and self.refused_revoked
            and self.clean_stop
            and not self.leftovers
        )


class Hands:
    """The drill, in one empty directory, as root."""

    def __init__(self, home: Path, clock: Clock, seed: int) -> None:
        self._home = home
        self._clock = clock
        self._dice = Dice(seed)
        self._scale = f"{clock.scale:g}"
        self._places = Places(clock, home / "places.log")
        self._typist = Typist(home, clock)
        self._nodes: dict[str, Child[Any]] = {}
        self.report = HandsReport(clock.scale, seed)

    async def run(self) -> HandsReport:
        """Raises UsageError when it is not root, OperationFault when a step fails."""
        began, report = self._clock.elapsed(), self.report
        before = set(descendants(os.getpid()))
        try:
            await self._make_places()
            await self._found()
            await self._join_all()
            await self._begin_devices()
            await self._lose_a_machine()
            await self._start_one_again()
            await self._shut_one_out()
            await self._end_devices()
            await self._judge_connections()
            statuses = await self._typist.stop_all()
            report.clean_stop = bool(statuses) and not any(statuses.values())
        finally:
            await self._typist.stop_all()
            held = await self._places.stop()
            left = set(descendants(os.getpid())) - before
            report.leftovers = held + len(left)
            report.commands_typed = len(self._typist.transcript)
            text = "\n".join(self._typist.transcript)
            write_file(self._home / "transcript.txt", text.encode() + b"\n")
        report.seconds = round((self._clock.elapsed() - began) / self._clock.scale, 1)
        return report

    # --- Places ----------------------------------------------------------------------------------
    async def _make_places(self) -> None:
        make = self._places.make
        self._offline = await make("offline")
        self._hq = await make("hq", HQ_HOST)
        self._machines = {
            provider: await make(provider, f"{NETWORK}{21 + number}")
            for number, (provider, _) in enumerate(OWNERS)
        }
        self._laptop = await make("laptop", NETWORK + "31")
        self._phone = await make("phone", NETWORK + "32")
        self.report.namespaces = self._places.count

    def _at(self, *parts: str) -> str:
        return str(self._home.joinpath(*parts))

    # --- Founding --------------------------------------------------------------------------------
    async def _found(self) -> None:
        """OPERATIONS.md, "A network of several machines", steps 1 to 4."""
        words, root, hq = self._at("root-passphrase"), self._at("ROOT"), self._at("HQ")
        write_file(Path(words), b"six words that nobody guesses here\n")
        typist, offline = self._typist, self._offline
        await typist.type(
            offline, "root", "create", "--out", root, "--domain", DOMAIN, "--passphrase-file", words
        )
        made = await typist.ask(
            self._hq,
            *("hq", "init", "--dir", hq, "--root-cert", f"{root}/root.crt", "--host", HQ_HOST),
            *("--regions", "eu", "--time-scale", self._scale),
        )
        signed = await typist.ask(
            offline,
            *("root", "issue-intermediate", "--root", root, "--passphrase-file", words),
            *("--hq-request", made["request"], "--out", self._at("hq.crt")),
        )
        if signed["identity"] != made["identity"]:
            raise OperationFault("the root signed for another headquarters", retryable=False)
        await typist.type(self._hq, "hq", "install", self._at("hq.crt"), "--dir", hq)
        await typist.start(self._hq, "hq", "serve", "--dir", hq)
        await self._until(self._hq_leads, "headquarters to lead")

    async def _hq_leads(self) -> bool:
        try:
            found = await self._typist.look(self._hq, "hq", "status", "--dir", self._at("HQ"))
        except OperationFault:
            return False
        return bool(found["leading"])

    # --- Nodes -----------------------------------------------------------------------------------
    async def _join_all(self) -> None:
        joins = [
            self._join(provider, owner, role, port)
            for provider, owner in OWNERS
            for role, port in ROLES
        ]
        await asyncio.gather(*joins)
        await self._until(lambda: self._servers(lambda rows: _all_green(rows, 6)), "six servers")

    async def _join(
        self, provider: str, owner: str, role: str, port: int, *more: str, name: str = ""
    ) -> str:
        """A token at headquarters, the rest at the machine; the logical server's name."""
        line = await self._typist.ask(
            self._hq,
            *("hq", "token", "create", "--dir", self._at("HQ"), "--role", role, "--region", "eu"),
            *("--owner", owner, "--provider", provider, *more),
        )
        place = self._machines[provider]
        directory = self._at(name or f"{provider}-{role}")
        listen = () if port == ROLES[0][1] else ("--listen", f"0.0.0.0:{port}")
        found = await self._typist.ask(
            place, "node", "join", line["token"], "--dir", directory, *listen
        )
        if found["told"] != f"{place.address}:{port}":
            raise OperationFault(f"clients are told {found['told']}", retryable=False)
        await self._run(provider, directory, found["name"])
        self.report.nodes += 1
        return str(found["name"])

    async def _run(self, provider: str, directory: str, name: str) -> None:
        self._nodes[name] = await self._typist.start(
            self._machines[provider],
            *("node", "run", "--dir", directory, "--time-scale", self._scale),
        )

    async def _servers(self, holds: Callable[[list[dict[str, Any]]], bool]) -> bool:
        found = await self._typist.look(self._hq, "hq", "servers", "--dir", self._at("HQ"))
        return holds(found["servers"])

    async def _server(self, name: str) -> dict[str, Any]:
        found = await self._typist.look(self._hq, "hq", "servers", "--dir", self._at("HQ"))
        return next(row for row in found["servers"] if row["name"] == name)

    async def _whole(self) -> bool:
        """Every slot has three relays and three filled replicas."""
        found = await self._typist.look(self._hq, "hq", "slots", "--dir", self._at("HQ"))
        slots = found["slots"]
        return bool(slots) and all(slot["relays"] == slot["replicas"] == 3 for slot in slots)

    # --- Devices ---------------------------------------------------------------------------------
    async def _begin_devices(self) -> None:
        """A laptop shares a folder; a phone brings it back from words and locator."""
        found = await self._typist.ask(self._hq, "hq", "locator", "--dir", self._at("HQ"))
        folder = self._home / "laptop-files"
        self._write(folder, "first")
        write_file(self._home / "network.locator", found["locator"].encode())
        words, home = self._at("words"), ("--dir", self._at("laptop"))
        made = await self._typist.ask(
            self._laptop,
            *("device", "init", "--locator", self._at("network.locator"), *self._scaled()),
            *("--phrase-file", words, "--name", "laptop", *home),
        )
        await self._typist.ask(
            self._laptop, "folder", "add", str(folder), "--name", "docs", *home, *self._scaled()
        )
        await self._sync(self._laptop, "laptop")
        restored = await self._typist.ask(
            self._phone,
            *("device", "restore", "--phrase-file", words, "--locator", made["locator"]),
            *("--into", self._at("phone-files"), "--name", "phone"),
            *("--dir", self._at("phone"), *self._scaled()),
        )
        if not restored["complete"]:
            raise OperationFault(f"the phone lacks files: {restored['folders']}", retryable=False)

    async def _end_devices(self) -> None:
        """Changes in both directions, over the healed network."""
        await self._until(self._whole, "full redundancy")
        laptop, phone = self._home / "laptop-files", self._home / "phone-files" / "docs"
        self._write(laptop, "second")
        await self._sync(self._laptop, "laptop")
        await self._follow()
        await self._sync(self._phone, "phone")
        self._write(phone, "third")
        await self._sync(self._phone, "phone")
        await self._sync(self._laptop, "laptop")
        self.report.files = measure(laptop).files
        self.report.files_equal = self.report.files >= FILES and not mismatches(laptop, phone)

    async def _follow(self) -> None:
        """The phone slept through two changes of its relays, which is more than a device believes
        (D4): its owner reads it the locator that the laptop has."""
        home = ("--dir", self._at("phone"))
        (folder,) = (await self._sync(self._phone, "phone", status=None))["folders"]
        if not folder["record_refused"]:
            raise OperationFault("the phone followed two changes at once", retryable=False)
        found = await self._typist.ask(
            self._laptop, "device", "locator", "--dir", self._at("laptop")
        )
        await self._typist.ask(self._phone, "device", "follow", found["locator"], *home)

    async def _sync(self, place: Place, name: str, *, status: int | None = 0) -> dict[str, Any]:
        return await self._typist.ask(
            place, "folder", "sync", "--dir", self._at(name), *self._scaled(), status=status
        )

    def _scaled(self) -> tuple[str, ...]:
        return ("--time-scale", self._scale)

    def _write(self, top: Path, name: str) -> None:
        for number in range(FILES // 3):
            path = top / name / f"{number:03}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._dice.randbytes(self._dice.randrange(40_000)))

    # --- Deaths ----------------------------------------------------------------------------------
    async def _lose_a_machine(self) -> None:
        """Cyn's relay dies; the laptop works on meanwhile; the operator is told; cyn brings another
        machine. The old one, found again, is fenced."""
        name = await self._name_of("cedar", "relay")
        await self._kill(name)
        began = self._clock.elapsed()
        self._write(self._home / "laptop-files", "meanwhile")
        await self._sync(self._laptop, "laptop")
        await self._until(lambda: self._is(name, "red"), f"{name} to be RED")
        self.report.red_s = round((self._clock.elapsed() - began) / self._clock.scale, 1)
        text = await self._typist.type(self._hq, "hq", "servers", "--dir", self._at("HQ"))
        replace = "holdfast hq token create --role relay --region eu --owner cyn --provider cedar"
        self.report.told_of_dead = "cyn's machine" in text and replace in text
        began = self._clock.elapsed()
        await self._join("cedar", "cyn", "relay", 7_445, "--name", name, name="cedar-relay-new")
        await self._until(lambda: self._is(name, "green"), f"{name}'s successor")
        await self._until(self._whole, "full redundancy")
        await self._sync(self._laptop, "laptop")
        self.report.healed_s = round((self._clock.elapsed() - began) / self._clock.scale, 1)
        old = self._at("cedar-relay")
        status = await self._status_of("cedar", old)
        self.report.fenced = status == RETIRED_STATUS

    async def _start_one_again(self) -> None:
        """Ann's replica is switched off and on again, inside a minute: nothing happens."""
        name = await self._name_of("alder", "replica")
        await self._kill(name)
        await self._run("alder", self._at("alder-replica"), name)
        await self._until(lambda: self._is(name, "green"), f"{name} to serve again")

    async def _shut_one_out(self) -> None:
        """Bob's relay is revoked; bob brings a new one under the same name."""
        name = await self._name_of("birch", "relay")
        node = (await self._server(name))["node"]
        await self._typist.ask(
            self._hq, "hq", "revoke", "--dir", self._at("HQ"), "--node", node, "--reason", "a drill"
        )
        child = self._nodes.pop(name)
        self._typist.forget(child)
        try:
            async with self._clock.real_timeout(CUT_S):
                status: int | None = await child.wait()
        except TimeoutError:
            status = None
            await self._typist.stop(child)
        again = await self._status_of("birch", self._at("birch-relay"))
        self.report.refused_revoked = status == again == RETIRED_STATUS
        await self._join("birch", "bob", "relay", 7_445, "--name", name, name="birch-relay-new")
        await self._until(lambda: self._is(name, "green"), f"{name}'s successor")

    async def _status_of(self, provider: str, directory: str) -> int | None:
        """Exit status of a node that is started once more, or None when it goes on."""
        child = await self._typist.start(
            self._machines[provider],
            *("node", "run", "--dir", directory, "--time-scale", self._scale),
        )
        try:
            async with self._clock.real_timeout(30.0):
                return await child.wait()
        except TimeoutError:
            return None
        finally:
            await self._typist.stop(child)

    async def _kill(self, name: str) -> None:
        child = self._nodes.pop(name)
        self._typist.forget(child)
        child.kill()
        await child.wait()

    async def _name_of(self, provider: str, role: str) -> str:
        found = await self._typist.look(self._hq, "hq", "servers", "--dir", self._at("HQ"))
        rows = found["servers"]
        return next(str(r["name"]) for r in rows if (r["provider"], r["role"]) == (provider, role))

    async def _is(self, name: str, tier: str) -> bool:
        return bool((await self._server(name))["tier"] == tier)

    # --- Judging ---------------------------------------------------------------------------------
    async def _judge_connections(self) -> None:
        """Outbound only: nothing listens but public ports, nothing was dialled from headquarters,
        and a scan of every port from there finds the public ones alone."""
        public = {
            (place.address, port)
            for provider, place in self._machines.items()
            for port in _ports_of(provider)
        }
        listening = {
            (place.address, item.port)
            for place in self._machines.values()
            for item in place.sockets()
            if item.state == LISTENING and not item.host.startswith("127.")
        }
        served = any(item.port == API_PORT and item.remote_port for item in self._hq.sockets())
        dialled = self._dialled()
        scanned = set()
        for place in self._machines.values():
            found = await self._typist.ask(self._hq, "drill", "reach", "--host", place.address)
            scanned |= {(place.address, port) for port in found["open"]}
        self.report.control_seen = served and scanned == public and self._dialled() > 0
        self.report.outbound_only = not dialled and listening <= public and scanned <= public

    def _dialled(self) -> int:
        """Connections that headquarters' machine opened to nodes' machines, a minute back."""
        nodes = {place.address for place in self._machines.values()}
        return sum(item.remote in nodes and item.port != API_PORT for item in self._hq.sockets())

    async def _until(self, holds: Holds, what: str) -> None:
        await until(self._clock, holds, what, wait_s=HEAL_S, poll_s=POLL_S)


def _ports_of(provider: str) -> tuple[int, ...]:
    """What clients may dial at the end: two machines lost their relays at 7443 for 7445."""
    return (7_443, 7_444) if provider == "alder" else (7_444, 7_445)


def _all_green(rows: list[dict[str, Any]], count: int) -> bool:
    return len(rows) == count and all(row["tier"] == "green" for row in rows)
