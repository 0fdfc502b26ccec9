"""`hq.json`: how one headquarters is run. Strict: an unknown or ill-typed key is refused."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import PeerFault, UsageError
from holdfast.limits import DNS_TTL_S, HEARTBEAT_PERIOD_S
from holdfast.logic.trust.admission import Policy
from holdfast.rim.cloud.account import Account
from holdfast.rim.control.etcd_access import EtcdAccess
from holdfast.rim.dns.access import Access as PrimaryAccess
from holdfast.rim.files import read_file, write_file
from holdfast.wire.address import split_address
from holdfast.wire.hq import Terms, TicketTerms

CONFIG_FILE: Final = "hq.json"


class ContinuityConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may open headquarters' snapshots, and where they are kept (seed 004 §12.2)."""

    recipients: tuple[str, ...]
    """`age1...` lines; their key files are with people, never here."""
    directories: tuple[str, ...] = ()
    """Relative to the state directory; better a disk or mount of another provider."""
    pool_region: str = ""
    """Region of the slot whose replicas keep them too; empty: not in the pool."""

    def check(self) -> None:
        """Raises UsageError."""
        if not self.recipients:
            raise UsageError("continuity.recipients: name at least one age1... line")
        if not (self.directories or self.pool_region):
            raise UsageError("continuity: no directory and no pool_region; name one or both")


class HqConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Addresses are `host:port`; relative paths are relative to the state directory."""

    domain: str
    listen: str = "127.0.0.1:7400"
    """Where the API listens, TLS."""
    addresses: tuple[str, ...] = ()
    """Where nodes and devices reach the API; what is listened on when empty."""
    dns_listen: str = "127.0.0.1:7453"
    dns_addresses: tuple[str, ...] = ()
    """Where resolvers reach the name servers; what is listened on when empty."""
    dns_ttl_s: int = DNS_TTL_S
    dns_primary: PrimaryAccess | None = None
    """A name server that shows our zone too, by RFC 2136 (knot, bind9, a hosting provider's)."""
    admin_listen: str = "127.0.0.1:0"
    """Loopback only: the CLI and the web page."""
    subscriptions_listen: str = ""
    """Loopback only, plain HTTP: for a front with a certificate that clients' phones know."""
    subscriptions_url: str = ""
    """What members reach that front by, as https://sub.example.net."""
    seal_key_file: str = "seal.key"
    """32 bytes that open the providers' keys (`hq.vault`); kept elsewhere, as a mount or a
    credential of systemd, this disk alone opens none of them."""
    store: str = "control.db"
    """The file of the control store, where `etcd` names no other."""
    etcd: EtcdAccess | None = None
    """The members of the etcd that several headquarters share."""
    continuity: ContinuityConfig | None = None
    """Snapshots are taken when this is there."""
    regions: tuple[str, ...] = ()
    providers: tuple[Account, ...] = ()
    admission: Policy = Policy.INVITE
    sponsor_required: bool = False
    """Whether an application must name an owner who speaks for the applicant."""
    time_scale: float = 1.0
    report_tag_age_s: float = 86_400.0
    """How old a client's oldest blob must be before its report counts (D17)."""
    title: str = ""
    """What members' clients call this network; its domain when empty."""
    terms: Terms | None = None
    """What a group is granted; the servers' defaults when null."""
    tickets: tuple[TicketTerms, ...] = ()
    """Classes of tickets; without any, new groups need none."""
    heartbeat_s: float = HEARTBEAT_PERIOD_S
    slots_per_s: float = 1.0
    """New slots that one address may ask for in the long run, real seconds ..."""
    slots_burst: float = 200.0
    """... and at once: a school behind one address founds its groups on one morning."""
    refusals_per_s: float = 1.0
    """Bad join requests that one address may make in the long run, real seconds ..."""
    refusals_burst: float = 200.0
    """... and at once: guessing is hopeless, and it shall not be loud."""

    def check(self) -> None:
        """Raises UsageError for values that cannot work."""
        if not 0 < self.dns_ttl_s <= DNS_TTL_S:
            raise UsageError(f"dns_ttl_s must be 1 to {DNS_TTL_S} (seed 004 §7.3)")
        if not (self.time_scale > 0 and self.heartbeat_s > 0 and self.report_tag_age_s >= 0):
            raise UsageError("time_scale and heartbeat_s must be above zero")
        for text in (self.listen, self.dns_listen, *self.addresses, *self.dns_addresses):
            if listen_address(text)[1] == 0:
                raise UsageError(f"{text!r}: give a port, nodes must know it")
        for listen, told, option in (
            (self.listen, self.addresses, "address"),
            (self.dns_listen, self.dns_addresses, "dns_addresses"),
        ):
            if not told and is_wildcard(listen):
                raise UsageError(
                    f"nobody can dial {listen}; say where this headquarters is reached with "
                    f"--host, or in {CONFIG_FILE} as {option}"
                )
        listen_address(self.admin_listen)
        if self.subscriptions_listen:
            listen_address(self.subscriptions_listen)
        if self.subscriptions_url and not self.subscriptions_url.startswith("https://"):
            raise UsageError("subscriptions_url begins with https://; clients refuse anything else")
        classes = [item.name for item in self.tickets]
        if len(set(classes)) != len(classes) or not all(map(str.isalnum, classes)):
            raise UsageError("ticket classes have names of letters and digits, each once")
        if self.continuity is not None:
            self.continuity.check()
        if self.dns_primary is not None:
            listen_address(self.dns_primary.server)
            self.dns_primary.check()
        for provider in self.providers:
            provider.check()
        names = [provider.name for provider in self.providers]
        if len(set(names)) != len(names):
            raise UsageError("two providers have one name")
        missing = set(self.regions) - {r for p in self.providers for r in p.regions}
        if self.providers and missing:
            raise UsageError(f"no provider offers {', '.join(sorted(missing))}")


def is_wildcard(address: str) -> bool:
    """Whether `host:port` listens on every address, so that nobody can be told to dial it."""
    try:
        return ip_address(listen_address(address)[0]).is_unspecified
    except ValueError:
        return False


def listen_address(text: str) -> tuple[str, int]:
    """(host, port) of a listening address; port 0 picks one. Raises UsageError."""
    host, _, port = text.rpartition(":")
    if port == "0":
        return host.strip("[]"), 0
    try:
        return split_address(text)
    except PeerFault as fault:
        raise UsageError(f"{CONFIG_FILE}: {fault}") from fault


def load_config(directory: Path) -> HqConfig:
    """Read `hq.json`. Raises UsageError when there is none or it will not do."""
    data = read_file(directory / CONFIG_FILE)
    if data is None:
        raise UsageError(f"no headquarters in {directory}; run: holdfast hq init --dir {directory}")
    try:
        return parse_config(data)
    except UsageError as error:
        raise UsageError(f"{directory / CONFIG_FILE}: {error}") from error


def parse_config(data: bytes) -> HqConfig:
    """The bytes of `hq.json`. Raises UsageError when they will not do."""
    try:
        config = msgspec.json.decode(data, type=HqConfig)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UsageError(str(error)) from error
    config.check()
    return config


def save_config(directory: Path, config: HqConfig) -> None:
    """Write `hq.json`."""
    config.check()
    write_file(directory / CONFIG_FILE, msgspec.json.format(msgspec.json.encode(config), indent=2))
