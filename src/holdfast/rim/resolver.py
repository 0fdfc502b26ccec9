"""Where a logical server is now, according to DNS: a stub resolver (seed 004 §2.3, §7.3).

For `relay-eu-042` in `example.net` it asks

    SRV  _holdfast._tcp.relay-eu-042.example.net   -> target and port
    A, AAAA of the target                          -> hosts
    TXT  relay-eu-042.example.net                  -> node=<base32 node id>

What it answers is a hint (D1): whoever is found there proves who it is by its certificate. Nothing
is cached here; servers' TTLs are at most a minute, and callers ask only when they start cold or
cannot reach a server, no oftener than their backoff lets them. For the same reason the library is
loaded with the first question: it takes a quarter of a second, and most commands ask none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from holdfast.crypto.pure import base32_decode
from holdfast.errors import OperationFault
from holdfast.logic.fleet.model import NodeId
from holdfast.wire.address import join_address, split_address

if TYPE_CHECKING:
    import dns.asyncresolver

LOOKUP_S: Final = 3.0
"""Real seconds for one question, all servers tried."""
_SERVICE: Final = "_holdfast._tcp."
_NODE: Final = b"node="


class Resolved(msgspec.Struct, frozen=True):
    """What DNS says of a name. No addresses: it says nothing. `node` is None without a TXT."""

    addresses: tuple[str, ...] = ()
    node: NodeId | None = None


class Names(Protocol):
    """What the fabric asks of DNS."""

    async def resolve(self, name: str, domain: str) -> Resolved:
        """Look up the logical server `name`. Raises OperationFault when no DNS server answers."""
        ...


class Resolver:
    """Asks the DNS servers it was given (`host:port`), or the system's when it was given none."""

    def __init__(self, servers: Sequence[str] = (), *, lookup_s: float = LOOKUP_S) -> None:
        self._servers = tuple(servers)
        self._lookup_s = lookup_s
        self._resolver: dns.asyncresolver.Resolver | None = None

    async def resolve(self, name: str, domain: str) -> Resolved:
        """Look up the logical server `name`. Raises OperationFault when no DNS server answers."""
        host = f"{name}.{domain}"
        services, texts = await asyncio.gather(
            self._ask(_SERVICE + host, "SRV"), self._ask(host, "TXT")
        )
        addresses: list[str] = []
        for service in sorted(services, key=lambda row: row.priority):
            target = service.target.to_text(omit_final_dot=True)
            found = await asyncio.gather(self._ask(target, "A"), self._ask(target, "AAAA"))
            addresses += [join_address(row.address, service.port) for rows in found for row in rows]
        return Resolved(tuple(dict.fromkeys(addresses)), _node_of(texts))

    async def _ask(self, name: str, kind: str) -> list[Any]:
        """The records of one name and kind; none when there are none."""
        import dns.exception
        import dns.resolver

        resolver = self._configured()
        try:
            answer = await resolver.resolve(name, kind, search=False, lifetime=self._lookup_s)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except (dns.exception.DNSException, OSError) as error:
            raise OperationFault(f"DNS does not answer for {name}: {error}") from error
        return list(answer)

    def _configured(self) -> dns.asyncresolver.Resolver:
        if self._resolver is None:
            self._resolver = _make(self._servers)
        return self._resolver


def _make(servers: Sequence[str]) -> dns.asyncresolver.Resolver:
    import dns.asyncresolver
    import dns.nameserver
    import dns.resolver

    try:
        resolver = dns.asyncresolver.Resolver(configure=not servers)
    except (dns.resolver.NoResolverConfiguration, OSError) as error:
        raise OperationFault("this system has no DNS configured") from error
    if servers:
        resolver.nameservers = [
            dns.nameserver.Do53Nameserver(*split_address(text)) for text in servers
        ]
    resolver.timeout = 1.0
    return resolver


def _node_of(texts: Sequence[object]) -> NodeId | None:
    """The node id of the first TXT record that holds one."""
    for row in texts:
        text = b"".join(getattr(row, "strings", ()))
        if text.startswith(_NODE):
            try:
                node = base32_decode(text[len(_NODE) :].decode())
            except (ValueError, UnicodeDecodeError):
                continue
            if len(node) == 32:
                return node
    return None
