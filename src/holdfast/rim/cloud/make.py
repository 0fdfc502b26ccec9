"""From an account to the `Cloud` that speaks with its provider; libraries load when asked for."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.errors import UsageError
from holdfast.rim.clock import Clock
from holdfast.rim.cloud.account import Account, Kind
from holdfast.rim.cloud.port import Cloud
from holdfast.rim.cloud.process import ProcessCloud


def make_cloud(account: Account, network: str, key: Callable[[], str], clock: Clock) -> Cloud:
    """`network` labels what is ours at providers whose accounts may hold more; `key` is called for
    each call, so that a rotated key counts at once. Raises UsageError."""
    account.check()
    if account.kind is Kind.PROCESS:
        return ProcessCloud(account.endpoint, key, clock)
    try:
        match account.kind:
            case Kind.DOCKER:
                from holdfast.rim.cloud.docker import DockerCloud

                return DockerCloud(account, network)
            case Kind.KUBERNETES:
                from holdfast.rim.cloud.kubernetes import KubernetesCloud

                return KubernetesCloud(account, network, key)
            case Kind.HCLOUD:
                from holdfast.rim.cloud.hetzner import HetznerCloud

                return HetznerCloud(account, network, key)
            case Kind.LIBCLOUD:
                from holdfast.rim.cloud.libcloud import LibcloudCloud

                return LibcloudCloud(account, network, key)
    except ImportError as error:
        text = f"a {account.kind} account needs an extra: pip install 'holdfast[cloud]'"
        raise UsageError(text) from error
