"""`holdfast drill onboard`: somebody brings an entry and a core (seed 000, seed 001).

Each starts from an empty directory with a token and the two commands that a person types: `holdfast
node join TOKEN`, `holdfast node run`. The clock runs from the first until the node serves; the last
word has a user whose traffic goes through both. Then headquarters is gone for an hour of the nodes'
own time, and the user goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.errors import OperationFault
from holdfast.hq.admin import TokenMade, TokenOrder
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.internet import Internet
from holdfast.rim.process import Child, holdfast_command, spawn
from holdfast.sim.access.ground import (
    CORE_NET,
    ENTRY_NET,
    PORT,
    SERVER_NET,
    AccessGround,
    GroundNode,
)
from holdfast.sim.access.users import User

WEB: Final = (f"{SERVER_NET}.1", 80)
OFF_S: Final = 3_600.0
"""Headquarters' absence, in the network's seconds."""


class OnboardReport(msgspec.Struct):
    """What the drill found. `seconds` is the slower of the two nodes, from its first command."""

    time_scale: float
    commands: int = 0
    """Typed for one node, from an empty directory to serving."""
    seconds: float = 0.0
    nodes: dict[str, float] = {}
    off_s: float = 0.0
    """How long headquarters was away, in the network's seconds."""
    requests: int = 0
    hq_off_failures: int = 0
    control: bool = False
    """A request fails when the core is stopped: it was the way."""
    held: bool = False


class OnboardDrill:
    """One run, in a namespace of its own."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy, scale: float) -> None:
        self._home = home
        self._clock = clock
        self._ground = AccessGround(home, clock=clock, entropy=entropy, scale=scale)
        self._web = Internet(WEB[0])
        self.report = OnboardReport(scale)

    async def run(self) -> OnboardReport:
        """Raises OperationFault."""
        report, ground = self.report, self._ground
        self._web.start()
        try:
            await ground.start()
            await ground.cell("c1")
            core = await self._onboard(Role.CORE, f"{CORE_NET}.1:{PORT}")
            await self._onboard(Role.ENTRY, f"{ENTRY_NET}.1:{PORT}")
            report.seconds = max(report.nodes.values())
            token = (await ground.device(await ground.member("ada"), "c1")).token
            user = User(ground, self._clock, token, 16_000, WEB)
            await user.refresh()
            await ground.until("the way through", user.use)
            await self._hq_off(user)
            core.kill()
            report.control = not await user.use()
        finally:
            self._web.stop()
            await ground.stop()
        report.held = (
            report.commands == 2
            and report.control
            and report.hq_off_failures == 0 < report.requests
            and report.off_s >= OFF_S
        )
        return report

    async def _onboard(self, role: Role, address: str) -> GroundNode:
        """From a token to a serving node, by the commands of a person."""
        ground, scale = self._ground, self.report.time_scale
        order = TokenOrder(role=role, region="eu", owner="ada", provider="drill", cell="c1")
        made = await ground.call("POST", "/tokens", order, TokenMade)
        home = self._home / made.name
        where = f"--dir={home}"
        commands = (
            ("node", "join", made.token, where, f"--listen={address}", "--provider=drill"),
            ("node", "run", where, f"--time-scale={scale}"),
        )
        began = self._clock.elapsed()
        child: Child[Any] | None = None
        for number, words in enumerate(commands):
            log = self._home / f"{made.name}.{number}.log"
            child = await spawn(holdfast_command(*words), log=log)
            if words is not commands[-1] and await child.wait():
                raise OperationFault(f"joining failed; look into {log}", retryable=False)
        assert child is not None, "a node is run"
        node = ground.nodes[made.name] = GroundNode(made.name, role, "c1", home, address, child)
        await ground.serves(node)
        self.report.nodes[made.name] = round(self._clock.elapsed() - began, 1)
        self.report.commands = len(commands)
        return node

    async def _hq_off(self, user: User) -> None:
        report = self.report
        user.requests = user.failed = 0
        self._ground.kill_hq()
        gone = self._clock.elapsed()
        while (self._clock.elapsed() - gone) * report.time_scale < OFF_S:
            await user.use()
            await self._clock.sleep_real(0.05)
        report.off_s = round((self._clock.elapsed() - gone) * report.time_scale, 1)
        report.requests, report.hq_off_failures = user.requests, user.failed
        await self._ground.start_hq()
