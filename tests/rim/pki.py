"""A small network's certificates, for tests that shake hands."""

from __future__ import annotations

from holdfast.crypto.certificates import (
    Authority,
    TlsKey,
    create_root,
    issue_intermediate,
    issue_leaf,
)
from holdfast.crypto.keys import SigningKey
from holdfast.rim.tls import Credentials

NOW = 1_800_000_000.0
NETWORK = bytes(range(16))
DOMAIN = "kelp.test"


class Pki:
    """A root, an HQ's intermediate, and leaves on demand; serials count up from 100."""

    def __init__(self, seed: bytes = b"r", network: bytes = NETWORK, now: float = NOW) -> None:
        self.now = now
        self.network = network
        self.hq = SigningKey(b"h" * 32)
        self.root = create_root(seed * 32, network, DOMAIN, now)
        self.intermediate = self.new_intermediate(b"i")
        self._serial = 99

    @property
    def roots(self) -> tuple[bytes, ...]:
        return (self.root.certificate,)

    def new_intermediate(self, seed: bytes) -> Authority:
        key = TlsKey.from_bytes(seed * 32)
        return issue_intermediate(self.root, key, self.network, self.hq.public, self.now)

    def leaf(
        self,
        role: str = "relay",
        node: bytes = b"n" * 32,
        *,
        ca: Authority | None = None,
        now: float | None = None,
        days: float = 90,
        dns: str = f"relay-eu-001.{DOMAIN}",
        cell: str = "",
    ) -> Credentials:
        self._serial += 1
        ca = ca or self.intermediate
        key = TlsKey.from_bytes(self._serial.to_bytes(32, "big"))
        der = issue_leaf(
            ca,
            spki=key.spki(),
            network=self.network,
            role=role,
            node=node,
            dns_name=dns,
            serial=self._serial,
            now=self.now if now is None else now,
            days=days,
            cell=cell,
        )
        return Credentials((der, ca.certificate), key)

    def server(self) -> Credentials:
        return self.leaf("hq", self.hq.node, dns=f"hq.{DOMAIN}")
