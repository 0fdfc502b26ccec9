"""Every node is a witness (D4): it cosigns headquarters' log as long as that only grows.

The newest checkpoint is asked of HQ by long poll. It is cosigned with the node's identity key when
it extends what was cosigned before (`logic.trust.witness`); that memory is synced to the node's
disk before a cosignature leaves. A log with two faces is refused, logged, kept as evidence beside
the keys, and reported. A fault of the disk stops witnessing and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from holdfast.crypto.certinfo import cert_info
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import sha256
from holdfast.crypto.rootset import only_roots
from holdfast.errors import HoldfastError, OperationFault
from holdfast.logic.effects import Effects
from holdfast.logic.trust.checkpoint import log_origin, witness_name
from holdfast.logic.trust.note import cosignature_input, cosignature_line
from holdfast.logic.trust.witness import Accuse, Cosign, Seen, Witness
from holdfast.node.home import Home, Member
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.https_client import JsonClient
from holdfast.wire.hq import CheckpointReply, Cosignature, LogFault
from holdfast.wire.logged import verify_checkpoint
from holdfast.wire.pool import Empty

POLL_TIMEOUT_S: Final = 75.0
PAUSE_S: Final = (0.5, 2.0, 5.0, 15.0, 60.0)
"""Real seconds between calls that fail or bring nothing, times a jitter of 0.5 to 1.5."""
_log = logging.getLogger("holdfast.node.witness")


class Witnessing:
    """One node's witness. `run` for the life of the agent."""

    def __init__(
        self, home: Home, member: Member, hq: JsonClient, clock: Clock, entropy: Entropy
    ) -> None:
        self._home = home
        self._hq = hq
        self._clock = clock
        self._entropy = entropy
        self._identity: SigningKey = home.own_identity()
        self._domain = cert_info(only_roots(home.roots())[0]).domain
        self.trouble = ""
        """What was wrong with the log last, for people; empty while nothing is."""
        self._lost = False
        seen = Seen()
        try:
            seen = home.witnessed()
        except OperationFault as fault:
            self.trouble, self._lost = str(fault), True
        self._witness = Witness(log_origin(self._domain, member.network), seen)
        self.cosigned = 0
        """Checkpoints cosigned by this process."""

    @property
    def size(self) -> int:
        """Leaves of the checkpoint cosigned last."""
        return self._witness.seen.size

    async def run(self) -> None:
        """Until cancelled. A node whose memory is damaged serves on and witnesses no more."""
        if self._lost:
            _log.error("this node witnesses no more: %s", self.trouble)
            await asyncio.Event().wait()
        idle = 0
        while True:
            try:
                idle = 0 if await self.round() else idle + 1
            except HoldfastError as error:
                _log.info("witness: %s", error)
                idle += 1
            if idle:
                pause = PAUSE_S[min(idle, len(PAUSE_S)) - 1]
                await self._clock.sleep_real(pause * self._entropy.uniform(0.5, 1.5))

    async def round(self) -> bool:
        """Ask once; whether there was a longer log, and it was cosigned."""
        before = self.size
        path = f"/v1/checkpoint?after={before}"
        reply = await self._hq.call("GET", path, None, CheckpointReply, timeout_s=POLL_TIMEOUT_S)
        note, checkpoint = verify_checkpoint(
            self._home.roots(),
            reply.note,
            reply.signer,
            reply.proof,
            origin=self._witness.origin,
            now=self._clock.wall(),
        )
        effects = self._witness.offer(checkpoint, note.render(), reply.consistency)
        await self._obey(effects)
        return self.size > before

    async def _obey(self, effects: Effects) -> None:
        """Persist, then send; after a failed write only what is on the disk counts."""
        try:
            for seen in effects.persist:
                self._home.save_witnessed(seen)
        except OperationFault:
            self._witness = Witness(self._witness.origin, self._home.witnessed())
            raise
        for line in effects.audit:
            _log.error("%s %s %s", line.verb, line.subject, line.detail)
        for message in effects.send:
            if isinstance(message, Cosign):
                await self._cosign(message)
            elif isinstance(message, Accuse):
                await self._accuse(message)

    async def _cosign(self, message: Cosign) -> None:
        text, at, key = message.checkpoint.text(), int(self._clock.wall()), self._identity
        name = witness_name(self._domain, key.node)
        line = cosignature_line(name, key.public, at, key.sign(cosignature_input(text, at)))
        body = Cosignature(message.checkpoint.size, str(line))
        await self._hq.call("POST", "/v1/cosignatures", body, Empty)
        self.cosigned += 1

    async def _accuse(self, message: Accuse) -> None:
        """Evidence first: HQ may be the liar, and its own report book too."""
        self.trouble = f"the log was {message.reason}"
        self._home.save_evidence(
            f"log-{message.reason}-{sha256(message.offered).hex()[:16]}.txt",
            message.held + b"\n----\n\n" + message.offered,
        )
        fault = LogFault(message.reason, message.held, message.offered)
        await self._hq.call("POST", "/v1/log-faults", fault, Empty)
