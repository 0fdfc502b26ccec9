"""The directory of a local network: what is chosen once, and what says that it runs.

| path           | what                                                                       |
|----------------|----------------------------------------------------------------------------|
| settings.json  | names, regions, addresses and ports: chosen once, kept for ever            |
| root/          | the sealed network root and what opens it: only needed to sign for HQ      |
| hq/, hq-2/...  | the headquarters                                                           |
| etcd/          | the members of the control store, when it is etcd                          |
| providers/<p>/ | one provider: its servers' disks, its key, its own log                     |
| logs/          | what HQ and the daemons print                                              |
| network.json   | there while the network runs: where everything is, and the process ids     |
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import OperationFault, UsageError
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import read_file, remove_file, write_file
from holdfast.rim.ports import can_bind, free_port, free_subnets
from holdfast.rim.process import alive

PROVIDER_NAMES: Final = ("alder", "birch", "cedar", "dogwood", "elm", "fir", "gingko", "hazel")
HOST: Final = "127.0.0.1"
LOG_TAIL_LINES: Final = 20
SETTINGS_FILE: Final = "settings.json"
NETWORK_FILE: Final = "network.json"
SQLITE: Final = "sqlite"
ETCD: Final = "etcd"
STORES: Final = (SQLITE, ETCD)


class HqPorts(msgspec.Struct, frozen=True):
    """The three ports of a headquarters."""

    api: int
    dns: int
    admin: int


class Settings(msgspec.Struct, frozen=True):
    """`settings.json`: chosen at the first start."""

    domain: str
    regions: tuple[str, ...]
    providers: tuple[str, ...]
    subnets: tuple[str, ...]
    node_port: int
    provider_ports: tuple[int, ...]
    hq_port: int
    dns_port: int
    admin_port: int
    store: str = SQLITE
    more_hq: tuple[HqPorts, ...] = ()
    """Headquarters beside the first, over etcd."""

    def ports(self) -> tuple[int, ...]:
        """The ports of this machine's 127.0.0.1 that the network uses."""
        more = tuple(port for hq in self.more_hq for port in (hq.api, hq.dns, hq.admin))
        return (*self.provider_ports, self.hq_port, self.dns_port, self.admin_port, *more)


class ProcessInfo(msgspec.Struct, frozen=True):
    """One process of the network; `group` is its process group, servers' processes included."""

    name: str
    pid: int
    group: int
    address: str
    log: str


class NetworkFile(msgspec.Struct, frozen=True):
    """`network.json`, and what `up --json` prints: where everything is."""

    directory: str
    pid: int
    network: str
    """Network id, hex."""
    domain: str
    locator: str
    """The network locator: what a new device needs to find a slot. Not secret."""
    hq: str
    dns: str
    admin: str
    roots: str
    """File with the pinned roots, PEM."""
    regions: tuple[str, ...]
    providers: tuple[str, ...]
    time_scale: float
    servers: int
    slots: int
    page: str
    """One-time login link of the fleet page."""
    processes: tuple[ProcessInfo, ...]


def default_directory() -> Path:
    """Where a network lives unless somebody says otherwise."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return Path(state or Path.home() / ".local" / "state") / "holdfast" / "network"


def load_settings(directory: Path) -> Settings | None:
    """What was chosen at the first start; None before it. Raises OperationFault."""
    data = read_file(directory / SETTINGS_FILE)
    try:
        return msgspec.json.decode(data, type=Settings) if data else None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        where = directory / SETTINGS_FILE
        raise OperationFault(f"{where} is damaged: {error}", retryable=False) from error


def save_settings(directory: Path, settings: Settings) -> None:
    write_file(directory / SETTINGS_FILE, msgspec.json.format(msgspec.json.encode(settings)))


class Choice(msgspec.Struct, frozen=True):
    """What a caller may choose of a new network."""

    providers: int = 3
    regions: tuple[str, ...] = ("eu", "ap")
    domain: str = ""
    store: str = SQLITE
    headquarters: int = 1

    def check(self) -> None:
        """Raises UsageError."""
        if not 1 <= self.providers <= len(PROVIDER_NAMES):
            raise UsageError(f"--providers is 1 to {len(PROVIDER_NAMES)}")
        if not self.regions or len(set(self.regions)) != len(self.regions):
            raise UsageError("--regions is one or more different names, comma-separated: eu,ap")
        if self.store not in STORES:
            raise UsageError(f"--store is {' or '.join(STORES)}")
        if self.headquarters < 1 or (self.headquarters > 1 and self.store != ETCD):
            raise UsageError("several headquarters need a store they can share: --store etcd")


def choose_settings(choice: Choice, entropy: Entropy) -> Settings:
    """Free addresses and ports for a new network. Raises UsageError and OperationFault."""
    choice.check()
    providers, headquarters = choice.providers, choice.headquarters
    node_port = free_port(HOST, entropy)
    ports: set[int] = set()
    while len(ports) < 3 * headquarters + providers:
        ports |= {free_port(HOST, entropy)} - {node_port}
    chosen = sorted(ports)
    first, *more = (HqPorts(*chosen[3 * i : 3 * i + 3]) for i in range(headquarters))
    return Settings(
        domain=choice.domain,
        regions=choice.regions,
        providers=PROVIDER_NAMES[:providers],
        subnets=free_subnets(providers, node_port, entropy),
        node_port=node_port,
        provider_ports=tuple(chosen[3 * headquarters :]),
        hq_port=first.api,
        dns_port=first.dns,
        admin_port=first.admin,
        store=choice.store,
        more_hq=tuple(more),
    )


def check_free(settings: Settings) -> None:
    """Raises UsageError when somebody else has taken one of our ports meanwhile."""
    taken = [str(port) for port in settings.ports() if not can_bind(HOST, port)]
    if taken:
        raise UsageError(
            f"port {', '.join(taken)} of {HOST} is in use by another program; "
            "stop it, or start a new network with --dir"
        )


def network_file(directory: Path) -> NetworkFile | None:
    """What runs in `directory`, if its owner still lives."""
    data = read_file(directory / NETWORK_FILE)
    try:
        about = msgspec.json.decode(data, type=NetworkFile) if data else None
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return about if about is not None and alive(about.pid) else None


def save_network(directory: Path, about: NetworkFile) -> None:
    data = msgspec.json.format(msgspec.json.encode(about), indent=2)
    write_file(directory / NETWORK_FILE, data)


def forget_network(directory: Path) -> None:
    """Nothing runs here any more."""
    remove_file(directory / NETWORK_FILE)


def tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    """The last lines of a log, for a person who asks why."""
    data = read_file(log) or b""
    return "\n".join(data[-16_384:].decode(errors="replace").splitlines()[-lines:])
