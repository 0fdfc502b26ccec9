"""What HQ signs: node certificates with its intermediate, statements with its identity.

A statement travels as a `Staple`: the identity's signature and the intermediate certificate that
names that identity, which a pinned root vouches for. Pure work on keys in memory: nothing here
writes anything down. Whoever releases a certificate has committed it first (D8).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from holdfast.crypto.certificates import (
    TlsKey,
    cert_info,
    crl_pem,
    draw_serial,
    fingerprint,
    issue_leaf,
    make_crl,
)
from holdfast.crypto.rootset import only_roots
from holdfast.errors import OperationFault
from holdfast.hq.home import HqKeys
from holdfast.limits import NODE_CERT_DAYS
from holdfast.logic.fleet.model import NetworkId, NodeId, Role
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.tls import Credentials
from holdfast.wire.envelope import sign
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type

_DAY_S: Final = 86_400
HQ_NAME: Final = "hq"
"""HQ's own label under the domain."""


class Authority:
    """One HQ's power to sign."""

    def __init__(self, keys: HqKeys, domain: str, clock: Clock, entropy: Entropy) -> None:
        info = cert_info(keys.intermediate.certificate)
        assert info.name is not None, "checked when the keys were loaded"
        self._keys = keys
        self._expires_at = info.not_after
        self._clock = clock
        self._entropy = entropy
        self.network: NetworkId = info.name.network
        self.node: NodeId = keys.identity.node
        self.domain = domain

    @property
    def roots(self) -> tuple[bytes, ...]:
        """DER of the root set: every root now accepted, and the links between them."""
        return self._keys.roots

    @property
    def fingerprints(self) -> tuple[bytes, ...]:
        """SHA-256 of each root's DER: what join tokens pin."""
        return tuple(fingerprint(root) for root in only_roots(self.roots))

    @property
    def intermediate(self) -> bytes:
        """DER of our intermediate certificate: the proof in every staple."""
        return self._keys.intermediate.certificate

    @property
    def expires_at(self) -> int:
        """When the intermediate ends, Unix seconds."""
        return self._expires_at

    def issue(
        self, spki: bytes, role: Role, node: NodeId, name: str, cell: str = ""
    ) -> tuple[bytes, bytes]:
        """A chain (leaf, intermediate) for `spki`, valid `NODE_CERT_DAYS` or as long as we are.

        An entry or a core is named after its cell alone: one service, whoever looks.

        Raises OperationFault, not retryable, when our own certificate is about to end.
        """
        now = self._clock.wall()
        days = min(NODE_CERT_DAYS, (self._expires_at - now) / _DAY_S)
        if days < 1:
            raise OperationFault(
                "our intermediate certificate is about to end; run: holdfast hq request",
                retryable=False,
            )
        leaf = issue_leaf(
            self._keys.intermediate,
            spki=spki,
            network=self.network,
            role=role.value,
            node=node,
            dns_name=f"{cell or name}.{self.domain}",
            serial=draw_serial(self._entropy.bytes(16)),
            now=now,
            days=days,
            cell=cell,
        )
        return leaf, self.intermediate

    def crl(self, serials: Iterable[int]) -> bytes:
        """PEM of an X.509 revocation list of our intermediate, for proxies that know no other."""
        return crl_pem(make_crl(self._keys.intermediate, serials, self._clock.wall()))

    def own_credentials(self) -> Credentials:
        """A fresh key and certificate for our own TLS port."""
        key = TlsKey.from_bytes(self._entropy.bytes(32))
        return Credentials(self.issue(key.spki(), Role.HQ, self.node, HQ_NAME), key)

    @property
    def identity_public(self) -> bytes:
        """Our identity key: what checkpoints and statements are signed with."""
        return self._keys.identity.public

    def sign_note(self, text: str) -> tuple[bytes, bytes]:
        """(public key, signature) over the text of a checkpoint, which begins with our origin."""
        assert text.startswith(f"{self.domain}/log/"), "nothing else is signed bare"
        return self._keys.identity.public, self._keys.identity.sign(text.encode())

    def current(self, staple: Staple) -> Staple:
        """The same statement with today's proof, if it is ours: our identity outlives each of its
        intermediates, and so do its signatures."""
        if staple.signed.signer != self._keys.identity.public:
            return staple
        return msgspec.structs.replace(staple, proof=self.intermediate)

    def sign(self, kind: Type, statement: object) -> Staple:
        """A statement of this HQ with its proof."""
        return Staple(sign(self._keys.identity, kind, statement), self.intermediate)
