"""What the network's zone says, and the answer to one question about it: no I/O here.

For a logical server `relay-eu-042` of the domain `example.net`:

    relay-eu-042.example.net                   A, AAAA   its hosts
                                               TXT       node=<base32 node id>
    _holdfast._tcp.relay-eu-042.example.net    SRV       0 0 <port> relay-eu-042.example.net

The apex has SOA and NS; `ns1`, `ns2`, ... are this network's own name servers. Every TTL is at
most a minute (seed 004 §7.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import msgspec

from holdfast.crypto.pure import base32
from holdfast.limits import DNS_TTL_S
from holdfast.logic.fleet.model import NodeId

NEGATIVE_TTL_S: Final = 10
"""How long "no such name" may be remembered: a server spawned a moment ago must be found."""
UDP_BYTES_MAX: Final = 1_232
"""Fits every path without fragments (DNS flag day 2020)."""
UDP_BYTES_PLAIN: Final = 512
"""Without EDNS (RFC 1035 §4.2.1)."""
_REFUSED_TYPES: Final = frozenset({dns.rdatatype.AXFR, dns.rdatatype.IXFR})

_ENTRIES_KEPT: Final = 16_384
_Kinds = dict[dns.rdatatype.RdataType, tuple[dns.rdata.Rdata, ...]]
Table = Mapping[dns.name.Name, Mapping[dns.rdatatype.RdataType, tuple[dns.rdata.Rdata, ...]]]


class Entry(msgspec.Struct, frozen=True):
    """One logical name as stored at /dns/<name>: IP literals, one port, the node that serves."""

    name: str
    addresses: tuple[str, ...]
    port: int
    node: NodeId


class View(msgspec.Struct, frozen=True):
    """The zone at one moment. Names are absolute; lookups ignore case, as `dns.name` does."""

    origin: dns.name.Name
    table: Table
    soa: dns.rrset.RRset
    ttl_s: int
    serial: int
    """Of the store it was built from; the SOA has its low 32 bits."""


def build_view(
    domain: str, servers: Sequence[str], entries: Iterable[Entry], *, serial: int, ttl_s: int
) -> View:
    """The zone from its entries. `servers` are the IP literals of the name servers."""
    assert 0 < ttl_s <= DNS_TTL_S, "seed 004 §7.3"
    origin = dns.name.from_text(domain)
    table: dict[dns.name.Name, _Kinds] = {}
    names = [f"ns{index}" for index in range(1, len(servers) + 1)]
    for name, address in zip(names, servers, strict=True):
        table[dns.name.from_text(name, origin)] = _hosts([address])
    for entry in entries:
        host, service, kinds, srv = _records(entry, origin)
        table[host] = kinds
        table[service] = srv
        table.setdefault(service.parent(), {})  # `_tcp` exists, without records of its own
    first = f"{names[0] if names else 'ns1'}.{origin}"
    minimum = min(NEGATIVE_TTL_S, ttl_s)
    timers = f"{ttl_s} {ttl_s} {7 * 86_400} {minimum}"
    soa = _rdata("SOA", f"{first} hostmaster.{origin} {serial % 2**32} {timers}")
    table[origin] = {dns.rdatatype.SOA: (soa,)}
    if names:
        table[origin][dns.rdatatype.NS] = tuple(_rdata("NS", f"{n}.{origin}") for n in names)
    return View(origin, table, dns.rrset.from_rdata(origin, minimum, soa), ttl_s, serial)


@lru_cache(maxsize=_ENTRIES_KEPT)
def _records(
    entry: Entry, origin: dns.name.Name
) -> tuple[dns.name.Name, dns.name.Name, _Kinds, _Kinds]:
    """(host, service, records of the host, records of the service). Kept, for one change among
    thousands of names must not cost a second."""
    host = dns.name.from_text(entry.name, origin)
    kinds = _hosts(entry.addresses)
    kinds[dns.rdatatype.TXT] = (_rdata("TXT", f'"node={base32(entry.node)}"'),)
    service = dns.name.from_text(f"_holdfast._tcp.{entry.name}", origin)
    return host, service, kinds, {dns.rdatatype.SRV: (_rdata("SRV", f"0 0 {entry.port} {host}"),)}


def answer(query: dns.message.Message, view: View) -> dns.message.Message:
    """The reply to a well-formed query. Never raises."""
    reply = dns.message.make_response(query, our_payload=UDP_BYTES_MAX)
    reply.flags &= ~dns.flags.RA
    rcode = _refusal(query)
    if rcode is not None:
        reply.set_rcode(rcode)
        return reply
    question = query.question[0]
    if question.rdclass != dns.rdataclass.IN or not question.name.is_subdomain(view.origin):
        reply.set_rcode(dns.rcode.REFUSED)
        return reply
    reply.flags |= dns.flags.AA
    found = view.table.get(question.name)
    if found is None:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    kinds = _kinds(found or {}, question.rdtype)
    for kind in kinds:
        assert found is not None
        reply.answer.append(dns.rrset.from_rdata_list(question.name, view.ttl_s, found[kind]))
        _add_hosts(reply, found[kind], view)
    if not kinds:
        reply.authority.append(view.soa)
    return reply


def _refusal(query: dns.message.Message) -> dns.rcode.Rcode | None:
    """Why this message gets no answer from the zone, whatever it asks."""
    if query.opcode() == dns.opcode.UPDATE:
        return dns.rcode.REFUSED
    if query.opcode() != dns.opcode.QUERY:
        return dns.rcode.NOTIMP
    if len(query.question) != 1:
        return dns.rcode.FORMERR
    if query.edns > 0:
        return dns.rcode.BADVERS
    if query.question[0].rdtype in _REFUSED_TYPES:
        return dns.rcode.REFUSED
    return None


def _kinds(
    found: Mapping[dns.rdatatype.RdataType, tuple[dns.rdata.Rdata, ...]],
    asked: dns.rdatatype.RdataType,
) -> list[dns.rdatatype.RdataType]:
    """The record kinds to answer with; ANY gets one (RFC 8482)."""
    if asked == dns.rdatatype.ANY:
        return list(found)[:1]
    return [asked] if asked in found else []


def _add_hosts(reply: dns.message.Message, records: Sequence[dns.rdata.Rdata], view: View) -> None:
    """The addresses of the targets of SRV and NS records, so that nobody asks twice."""
    for record in records:
        target = getattr(record, "target", None)
        hosts = view.table.get(target, {}) if target is not None else {}
        for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
            if target is not None and kind in hosts:
                rows = dns.rrset.from_rdata_list(target, view.ttl_s, hosts[kind])
                reply.additional.append(rows)


def _hosts(addresses: Sequence[str]) -> _Kinds:
    kinds: dict[dns.rdatatype.RdataType, list[dns.rdata.Rdata]] = {}
    for text in addresses:
        six = isinstance(ip_address(text), IPv6Address)
        kind = dns.rdatatype.AAAA if six else dns.rdatatype.A
        kinds.setdefault(kind, []).append(_rdata(kind.name, text))
    return {kind: tuple(rows) for kind, rows in kinds.items()}


def _rdata(kind: str, text: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(kind), text)
