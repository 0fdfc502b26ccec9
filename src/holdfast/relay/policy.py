"""What one relay or replica is set up to allow, and where its files are."""

from __future__ import annotations

from pathlib import Path

import msgspec

from holdfast import limits
from holdfast.errors import UsageError
from holdfast.logic.fleet.model import Role
from holdfast.rim.store.port import StorePolicy
from holdfast.wire.release import Knobs


class RelayPolicy(msgspec.Struct, frozen=True):
    """The limits of one server. Defaults are those of `limits`; rates are per real second."""

    store: StorePolicy = StorePolicy()
    sessions_max: int = limits.SESSIONS_MAX
    session_idle_s: float = limits.SESSION_IDLE_S
    requests_per_s: float = limits.REQUESTS_PER_S_MAX
    tag_requests_per_s: float = limits.SESSION_REQUESTS_PER_S
    tag_requests_burst: float = limits.SESSION_REQUESTS_BURST
    peer_requests_per_s: float = limits.PEER_REQUESTS_PER_S
    peer_requests_burst: float = limits.PEER_REQUESTS_BURST
    ttl_days: int = limits.RELAY_TTL_DAYS
    ttl_days_hard: int = limits.RELAY_TTL_DAYS_HARD

    def turned(self, knobs: Knobs) -> RelayPolicy:
        """With the settings of a release. Raises PeerFault for what no role can work with."""
        knobs.check()
        named = {name: getattr(knobs, name) for name in knobs.__struct_fields__}
        changes = {name: value for name, value in named.items() if value is not None}
        return msgspec.structs.replace(self, **changes)


class RelayConfig(msgspec.Struct, frozen=True):
    """One server process. Paths are PEM files but for `identity`, which is a 32-byte seed."""

    state: Path
    host: str
    port: int
    role: Role
    region: str
    chain: Path
    key: Path
    identity: Path
    roots: Path
    name: str = ""
    """The logical server's name, for the log; HQ's records are what counts."""
    network: bytes = b""
    """The network the certificate must be of; empty for whichever it is."""
    time_scale: float = 1.0
    policy: RelayPolicy = RelayPolicy()

    def __post_init__(self) -> None:
        if self.role not in (Role.RELAY, Role.REPLICA):
            raise UsageError(f"a pool server is a relay or a replica, not {self.role}")
