"""A throwaway network for a benchmark: a root, headquarters' keys, one relay and one slot.

Everything is real but the key ceremony. Keys come from the `Entropy` passed in and are thrown away
with the directory.
"""

from __future__ import annotations

from pathlib import Path

from holdfast.crypto.certificates import Authority, create_root, issue_intermediate, issue_leaf
from holdfast.crypto.certinfo import to_pem
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.tlskey import TlsKey
from holdfast.limits import GROUP_BYTES_MAX
from holdfast.logic.fleet.model import Role, Seat, SlotRecord, Version
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.wire.envelope import sign
from holdfast.wire.hq import Desired, Terms
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type

DOMAIN = "bench.test"
NAME = "relay-eu-001"
REGION = "eu"


class Groundwork:
    """Files of one relay under `home`, and what headquarters would tell it."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy) -> None:
        """Writes chain.pem, key.pem, identity.key and roots.pem."""
        self.home = home
        self._clock = clock
        now = clock.wall()
        self.network = entropy.bytes(16)
        self.root: Authority = create_root(entropy.bytes(32), self.network, DOMAIN, now)
        self._hq = SigningKey(entropy.bytes(32))
        self._intermediate = issue_intermediate(
            self.root, TlsKey.from_bytes(entropy.bytes(32)), self.network, self._hq.public, now
        )
        self.identity = SigningKey(entropy.bytes(32))
        self.slot = entropy.bytes(16)
        home.mkdir(parents=True, exist_ok=True)
        self.identity_file.write_bytes(self.identity.seed)
        self.roots_file.write_bytes(to_pem(self.roots))
        key = TlsKey.from_bytes(entropy.bytes(32))
        leaf = issue_leaf(
            self._intermediate,
            spki=key.spki(),
            network=self.network,
            role=Role.RELAY,
            node=self.identity.node,
            dns_name=f"{NAME}.{DOMAIN}",
            serial=1,
            now=now,
            days=2,
        )
        self.chain_file.write_bytes(to_pem([leaf, self._intermediate.certificate]))
        self.key_file.write_bytes(key.pem())

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The pinned roots, DER."""
        return (self.root.certificate,)

    @property
    def chain_file(self) -> Path:
        return self.home / "chain.pem"

    @property
    def key_file(self) -> Path:
        return self.home / "key.pem"

    @property
    def identity_file(self) -> Path:
        return self.home / "identity.key"

    @property
    def roots_file(self) -> Path:
        return self.home / "roots.pem"

    def words(self, port: int, requests_per_s: float) -> tuple[str, ...]:
        """The command line of the relay, after `holdfast`."""
        return (
            "relay",
            "serve",
            f"--dir={self.home / 'state'}",
            f"--listen=127.0.0.1:{port}",
            "--role=relay",
            f"--region={REGION}",
            f"--chain={self.chain_file}",
            f"--key={self.key_file}",
            f"--identity={self.identity_file}",
            f"--roots={self.roots_file}",
            f"--name={NAME}",
            f"--requests-per-s={requests_per_s}",
        )

    def desired(self, address: str, requests_per_s: float) -> Desired:
        """One slot with this relay alone; each group may ask as often as everybody together."""
        seat = Seat(NAME, self.identity.node, (address,), "bench", "owner", REGION)
        record = SlotRecord(
            network=self.network,
            slot=self.slot,
            version=Version(0, 1),
            issued_at=int(self._clock.wall()),
            relays=(seat,),
            replicas=(),
        )
        staple = Staple(sign(self._hq, Type.SLOT_RECORD, record), self._intermediate.certificate)
        return Desired(
            version=1,
            term=1,
            name=NAME,
            role=Role.RELAY,
            slots=(staple,),
            revocations=None,
            terms=Terms(GROUP_BYTES_MAX, requests_per_s, requests_per_s),
        )
