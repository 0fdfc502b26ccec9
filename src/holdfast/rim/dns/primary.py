"""Our names on somebody else's name server: RFC 2136 updates, signed with TSIG (RFC 8945).

The control store stays the truth; a primary (knot, bind9, a hosting provider's) shows a copy of
it, for networks that do not want to run name servers of their own. Headquarters reads what the
primary shows by AXFR, compares, and sends what differs, many names in one message: a lost provider
is one batch. Names that are none of ours are left alone.

Two headquarters may believe that they lead. A marker beside the names holds the version of the
copy, and every message asks that it still be the one that was read (RFC 2136 §2.4): who comes late
changes nothing and reads again, and nobody goes back to an older version. A restored headquarters
outranks its own past (D3).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import dns.asyncquery
import dns.exception
import dns.name
import dns.rcode
import dns.rdataset
import dns.rdatatype
import dns.tsig
import dns.update
import dns.xfr
import dns.zone
import msgspec

from holdfast.errors import HoldfastError, OperationFault, UsageError
from holdfast.limits.names import (
    PRIMARY_BACKOFF_S,
    PRIMARY_GATHER_S,
    PRIMARY_LATE_MAX,
    PRIMARY_LIFETIME_S,
    PRIMARY_NAMES_PER_UPDATE,
    PRIMARY_RECHECK_S,
)
from holdfast.logic.fleet.model import Version
from holdfast.rim.clock import Clock
from holdfast.rim.dns.access import Access
from holdfast.rim.dns.records import View
from holdfast.rim.dns.zone import Zone
from holdfast.wire.address import split_address

Wanted = Mapping[dns.name.Name, Mapping[dns.rdatatype.RdataType, dns.rdataset.Rdataset]]
"""Name relative to the zone -> record type -> records."""
Report = Callable[[str], Awaitable[None]]
"""Told of trouble when it begins, and with "" when it is over."""

_log = logging.getLogger("holdfast.dns.primary")
_MARKER: Final = dns.name.from_text("_version._holdfast", None)
_SERVICE: Final = dns.name.from_text("_holdfast._tcp", None)
_NODE: Final = b"node="
_KINDS: Final = frozenset(
    {dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.TXT, dns.rdatatype.SRV}
)
_LATE: Final = frozenset(
    {dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN}
)
_NOT_US: Final = frozenset(
    {dns.rcode.NOTAUTH, dns.rcode.REFUSED, dns.rcode.NOTZONE, dns.rcode.FORMERR, dns.rcode.NOTIMP}
)


class _Late(Exception):
    """The primary is no longer what was read."""


class Shown(msgspec.Struct, frozen=True):
    """What the primary has of ours, and the version of that copy; none before the first."""

    version: Version | None
    names: Wanted


class Primary:
    """One zone on one server that takes updates."""

    def __init__(self, access: Access, secret: str, domain: str) -> None:
        """Raises UsageError for a key that is none."""
        access.check()
        self._host, self._port = split_address(access.server)
        self.server = access.server
        self._origin = dns.name.from_text(domain)
        self._keyname = dns.name.from_text(access.key_name)
        algorithm = dns.name.from_text(access.algorithm)
        try:
            key = dns.tsig.Key(self._keyname, secret.strip(), algorithm)
        except ValueError as error:
            raise UsageError(f"{access.key_file} holds no key in base64") from error
        self._keyring = {self._keyname: key}

    async def read(self) -> Shown:
        """Everything of ours that it shows. Raises OperationFault, UsageError."""
        zone = dns.zone.Zone(self._origin, relativize=False)
        query, _ = dns.xfr.make_query(zone, keyring=self._keyring, keyname=self._keyname)
        try:
            await dns.asyncquery.inbound_xfr(
                self._host, zone, query, port=self._port, lifetime=PRIMARY_LIFETIME_S
            )
        except dns.xfr.TransferError as error:
            raise self._refused(error.rcode) from error
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise self._unreachable(error) from error
        names: dict[dns.name.Name, dict[dns.rdatatype.RdataType, dns.rdataset.Rdataset]] = {}
        version = None
        for absolute, node in zone.nodes.items():
            name = absolute.relativize(self._origin)
            kinds = {each.rdtype: each for each in node.rdatasets if each.rdtype in _KINDS}
            if name == _MARKER:
                version = _version_of(kinds)
            elif _is_ours(name, kinds):
                names[name] = kinds
        return Shown(version, names)

    async def write(self, version: Version, wanted: Wanted, shown: Shown) -> int:
        """Make it show `wanted`; how many names were changed. Raises `_Late` when somebody else
        wrote since `shown` was read, OperationFault, UsageError."""
        changes = _changes(wanted, shown.names)
        steps = [
            changes[start : start + PRIMARY_NAMES_PER_UPDATE]
            for start in range(0, len(changes), PRIMARY_NAMES_PER_UPDATE)
        ] or [[]]
        if not changes and shown.version == version:
            return 0
        for number, step in enumerate(steps):
            update = dns.update.UpdateMessage(
                self._origin, keyring=self._keyring, keyname=self._keyname
            )
            if number:
                update.present(_MARKER, dns.rdatatype.TXT, _marker(version))
            elif shown.version is None:
                update.absent(_MARKER, dns.rdatatype.TXT)
            else:
                update.present(_MARKER, dns.rdatatype.TXT, _marker(shown.version))
            for name, kind, records in step:
                if records is None:
                    update.delete(name, kind)
                else:
                    update.replace(name, records)
            if not number:  # from here on who comes late is refused, whatever is still to come
                update.replace(_MARKER, 10, dns.rdatatype.TXT, _marker(version))
            await self._send(update)
        return len({name for name, _, _ in changes})

    async def _send(self, update: dns.update.UpdateMessage) -> None:
        try:
            reply = await dns.asyncquery.tcp(
                update, self._host, timeout=PRIMARY_LIFETIME_S, port=self._port
            )
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise self._unreachable(error) from error
        rcode = reply.rcode()
        if rcode in _LATE:
            raise _Late
        if rcode != dns.rcode.NOERROR:
            raise self._refused(rcode)
        if not reply.had_tsig:
            raise OperationFault(f"name server {self.server} did not sign what it said")

    def _refused(self, rcode: dns.rcode.Rcode) -> HoldfastError:
        text = f"name server {self.server} refuses our update: {dns.rcode.to_text(rcode)}"
        if rcode in _NOT_US:
            return UsageError(f"{text}; it must know the zone and allow our key to update it")
        return OperationFault(text)

    def _unreachable(self, error: Exception) -> HoldfastError:
        if isinstance(error, dns.tsig.PeerError | dns.tsig.BadSignature | dns.tsig.BadTime):
            return UsageError(f"name server {self.server} knows another key: {error}")
        return OperationFault(f"name server {self.server} does not answer: {error}")


class Publisher:
    """Keeps a primary at what the zone says. `run` is its life."""

    def __init__(
        self, zone: Zone, primary: Primary, clock: Clock, report: Report, *, epoch: int = 0
    ) -> None:
        """`epoch`: how often headquarters was restored."""
        self._zone = zone
        self._epoch = epoch
        self._primary = primary
        self._clock = clock
        self._report = report
        self._shown: Shown | None = None
        self._trouble = ""
        self.current: View | None = None
        """What the primary shows for sure."""

    async def run(self) -> None:
        """Until cancelled: after every change, and now and then in case others wrote there."""
        failures, read_at = 0, self._clock.elapsed()
        while True:
            await self._clock.sleep_real(PRIMARY_GATHER_S)
            view = self._zone.view
            if self._clock.elapsed() - read_at >= PRIMARY_RECHECK_S * self._clock.scale:
                self._shown, read_at = None, self._clock.elapsed()
            try:
                await self.publish(view)
            except HoldfastError as fault:
                await self._say(str(fault))
                wait = PRIMARY_BACKOFF_S[min(failures, len(PRIMARY_BACKOFF_S) - 1)]
                failures += 1
                self._shown = None
                await self._clock.sleep_real(wait)
                continue
            failures, self.current = 0, view
            await self._say("")
            with contextlib.suppress(TimeoutError):
                async with self._clock.real_timeout(PRIMARY_RECHECK_S):
                    await self._zone.changed(view)

    async def publish(self, view: View) -> int:
        """Bring the primary level with a view; how many names were changed. What was written last
        is not read again: if it is no more so, the update is refused. Raises OperationFault,
        UsageError."""
        version, wanted = Version(self._epoch, view.serial), _wanted(view)
        for _ in range(PRIMARY_LATE_MAX):
            shown = self._shown or await self._primary.read()
            if shown.version is not None and shown.version > version:
                raise OperationFault(
                    f"name server {self._primary.server} shows a later version than ours: "
                    "another headquarters is ahead"
                )
            try:
                count = await self._primary.write(version, wanted, shown)
                self._shown = Shown(version, wanted)
                return count
            except _Late:
                self._shown = None
                _log.info("another headquarters wrote to %s meanwhile", self._primary.server)
        raise OperationFault(f"others keep writing to {self._primary.server}, or to its marker")

    async def _say(self, trouble: str) -> None:
        if trouble == self._trouble:
            return
        if bool(trouble) != bool(self._trouble):
            await self._report(trouble)
        self._trouble = trouble
        if trouble:
            _log.error("%s", trouble)


def _wanted(view: View) -> Wanted:
    """The names of a view, without what belongs to the zone itself: apex and name servers."""
    names: dict[dns.name.Name, dict[dns.rdatatype.RdataType, dns.rdataset.Rdataset]] = {}
    for absolute, kinds in view.table.items():
        name = absolute.relativize(view.origin)
        if _is_ours(name, kinds):
            names[name] = {
                kind: dns.rdataset.from_rdata_list(view.ttl_s, records)
                for kind, records in kinds.items()
            }
    return names


def _changes(
    wanted: Wanted, shown: Wanted
) -> Sequence[tuple[dns.name.Name, dns.rdatatype.RdataType, dns.rdataset.Rdataset | None]]:
    """(name, type, records it must have; None for none) of all that differs."""
    found: list[tuple[dns.name.Name, dns.rdatatype.RdataType, dns.rdataset.Rdataset | None]] = []
    for name, kinds in wanted.items():
        there = shown.get(name, {})
        for kind, records in kinds.items():
            if there.get(kind) != records or there[kind].ttl != records.ttl:
                found.append((name, kind, records))
        found += [(name, kind, None) for kind in there if kind not in kinds]
    for name, kinds_there in shown.items():
        if name not in wanted:
            found += [(name, kind, None) for kind in kinds_there]
    return found


def _is_ours(name: dns.name.Name, kinds: Mapping[dns.rdatatype.RdataType, Iterable[Any]]) -> bool:
    """Whether headquarters published it: a service, or a host that says which node serves it."""
    if name.labels[:2] == _SERVICE.labels:
        return bool(kinds)
    texts = kinds.get(dns.rdatatype.TXT, ())
    return any(part.startswith(_NODE) for text in texts for part in text.strings)


def _marker(version: Version) -> str:
    return f'"version={version.epoch}.{version.n}"'


def _version_of(kinds: Mapping[dns.rdatatype.RdataType, dns.rdataset.Rdataset]) -> Version | None:
    for text in kinds.get(dns.rdatatype.TXT, ()):
        epoch, _, n = b"".join(text.strings).removeprefix(b"version=").partition(b".")
        if epoch.isdigit() and n.isdigit():
            return Version(int(epoch), int(n))
    return None
