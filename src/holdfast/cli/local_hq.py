"""The headquarters of a local network as they lie on disk: one, or several over one etcd.

The first is called `hq`, others `hq-2`, `hq-3`... Each has its own identity, its own intermediate
and its own ports; with SQLite there is one, because its store is a file of that one's directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from holdfast.cli.local_files import HOST, HqPorts, Settings
from holdfast.cli.root import create_embedded, open_embedded
from holdfast.crypto.certificates import Authority, cert_info, sign_intermediate
from holdfast.errors import UsageError
from holdfast.hq.config import ContinuityConfig, HqConfig, save_config
from holdfast.hq.home import HqHome
from holdfast.hq.vault import DIRECTORY
from holdfast.rim.clock import Clock
from holdfast.rim.cloud.account import Account
from holdfast.rim.cloud.keys import Keys
from holdfast.rim.control.etcd_access import EtcdAccess
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import make_private_directory, write_file
from holdfast.wire.ceremony import check_request, parse_request
from holdfast.wire.cloud import SERVERS
from holdfast.wire.hq import Terms, TicketTerms

HQ: Final = "hq"


def hq_names(settings: Settings) -> tuple[str, ...]:
    """Names of the headquarters, which are those of their directories."""
    return (HQ, *(f"{HQ}-{index + 2}" for index in range(len(settings.more_hq))))


def hq_ports(settings: Settings, name: str) -> HqPorts:
    """The ports of one of them."""
    first = HqPorts(settings.hq_port, settings.dns_port, settings.admin_port)
    return (first, *settings.more_hq)[hq_names(settings).index(name)]


def addresses(settings: Settings) -> tuple[str, ...]:
    """Where the API of each is reached."""
    return tuple(f"{HOST}:{hq_ports(settings, name).api}" for name in hq_names(settings))


def resolvers(settings: Settings) -> tuple[str, ...]:
    """Where the name server of each is reached."""
    return tuple(f"{HOST}:{hq_ports(settings, name).dns}" for name in hq_names(settings))


def config_of(
    settings: Settings,
    name: str,
    *,
    key_files: dict[str, Path],
    etcd: EtcdAccess | None,
    time_scale: float,
    report_tag_age_s: float,
    terms: Terms | None,
    tickets: tuple[TicketTerms, ...] = (),
    continuity: ContinuityConfig | None = None,
) -> HqConfig:
    """What stands in the `hq.json` of one of them."""
    providers = tuple(
        Account(
            name=provider,
            endpoint=f"{HOST}:{port}",
            key_file=str(key_files[provider]),
            regions=settings.regions,
        )
        for provider, port in zip(settings.providers, settings.provider_ports, strict=True)
    )
    ports = hq_ports(settings, name)
    return HqConfig(
        domain=settings.domain,
        listen=f"{HOST}:{ports.api}",
        addresses=addresses(settings),
        dns_listen=f"{HOST}:{ports.dns}",
        dns_addresses=resolvers(settings),
        admin_listen=f"{HOST}:{ports.admin}",
        etcd=etcd,
        regions=settings.regions,
        providers=providers,
        time_scale=time_scale,
        report_tag_age_s=report_tag_age_s,
        terms=terms,
        tickets=tickets,
        continuity=continuity,
    )


def provider_keys(
    home: Path, providers: dict[str, Path], now: float, entropy: Entropy
) -> dict[str, Path]:
    """Where headquarters finds its key of each provider at its first start: one for machines alone,
    made as the account's owner would, in a file that it seals and removes."""
    files = {}
    for name, directory in providers.items():
        files[name] = home / "providers" / f"{name}.key"
        if not (home / DIRECTORY / f"{name}.sealed").exists() and not files[name].exists():
            make_private_directory(home)
            make_private_directory(files[name].parent)
            made = Keys(directory).make((SERVERS,), f"headquarters {home.name}", now, entropy)
            write_file(files[name], made.key.encode())
    return files


def prepare(
    home: HqHome, config: HqConfig, root: Authority, clock: Clock, entropy: Entropy
) -> None:
    """Keys, configuration and an intermediate: made, or brought up to date where they lie there."""
    if (home.directory / "identity.key").exists():
        kept = config.continuity or home.config().continuity
        save_config(home.directory, msgspec.structs.replace(config, continuity=kept))
    else:
        home.init(config, (root.certificate,), entropy)
    try:
        home.keys(clock.wall())
    except UsageError:
        _certify(home, root, clock.wall(), entropy)


def embedded_root(where: Path, domain: str, now: float, entropy: Entropy) -> Authority:
    """The root beside its key: what `up` has instead of an offline machine."""
    if (where / "root.crt").exists():
        return open_embedded(where)
    network = entropy.bytes(16)
    return create_embedded(where, network=network, domain=domain, now=now, entropy=entropy)


def _certify(home: HqHome, root: Authority, now: float, entropy: Entropy) -> None:
    """The ceremony between HQ and the offline root, both of them here."""
    name = cert_info(root.certificate).name
    assert name is not None, "a root names its network"
    request = parse_request(home.request(entropy))
    certificate = sign_intermediate(
        root,
        spki=check_request(request, name.network),
        network=name.network,
        identity_public=request.identity,
        now=now,
    )
    home.install(certificate, now)
