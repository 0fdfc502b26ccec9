"""How a node joins: its token, the address that clients are told, the waits."""

from __future__ import annotations

import logging
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from holdfast.cli.service import host_port
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.node import membership
from holdfast.node.home import Home, Member
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy, SystemEntropy
from holdfast.rim.ports import address_towards
from holdfast.wire.address import join_address
from holdfast.wire.token import JoinToken, parse_token

JOIN_TRIES: Final = 5
JOIN_WAIT_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Real seconds between tries, times a jitter of 0.5 to 1.5."""
STANDBY_WAITS: Final = 3
"""Who stands by must be heard again within `STANDBY_SILENT_S`: it waits no longer than these."""
DEFAULT_LISTEN: Final = "0.0.0.0:7443"

_log = logging.getLogger("holdfast.node")


async def join_network(
    home: Home,
    text: str,
    listen: str,
    advertise: str,
    provider: str,
    clock: Clock,
    tries: int | None,
) -> Member:
    """Join, again and again while HQ is out of reach: `tries` times, or for ever when None."""
    token = token_of(text)
    entropy: Entropy = SystemEntropy()
    addresses = (told_address(listen, advertise, token.hq[0]),)
    failures = 0
    while True:
        try:
            if token.stands_by:
                _log.info("standing by until headquarters calls")
                await membership.stand_by(token, clock)
            return await membership.join(
                home,
                token,
                listen=listen,
                addresses=addresses,
                provider=provider,
                clock=clock,
                entropy=entropy,
                advertise=advertise,
            )
        except OperationFault as fault:
            failures += 1
            if not fault.retryable or failures == tries:
                raise
            _log.warning("joining: %s", fault)
        waits = JOIN_WAIT_S[:STANDBY_WAITS] if token.stands_by else JOIN_WAIT_S
        wait = waits[min(failures, len(waits)) - 1]
        await clock.sleep_real(wait * entropy.uniform(0.5, 1.5))


def told_address(listen: str, advertise: str, hq: str) -> str:
    """What clients are told (`host:port`): `advertise`, or what is listened on, or, when that is
    every address of this machine, the one from which it reaches headquarters.

    Raises UsageError for what clients cannot dial: they need an IP address and a port.
    """
    host, port = host_port(listen)
    if port == 0:
        raise UsageError(f"--listen {listen}: give a port, clients must know it")
    if advertise:
        host, told_port = host_port(advertise)
        port = told_port or port
    elif ip_address_of(host, "--listen").is_unspecified:
        host = address_towards(hq)
    literal = ip_address_of(host, "--advertise" if advertise else "--listen")
    if literal.is_unspecified or literal.is_multicast:
        raise UsageError(f"nobody can dial {host}; give --advertise this machine's own address")
    return join_address(host, port)


def ip_address_of(host: str, option: str) -> IPv4Address | IPv6Address:
    """Raises UsageError for anything but an IP address."""
    try:
        return ip_address(host)
    except ValueError as error:
        raise UsageError(f"{option}: {host} is a name; give an IP address, DNS is ours") from error


def token_of(text: str) -> JoinToken:
    """Raises UsageError for what is no token."""
    try:
        return parse_token(text.strip())
    except PeerFault as fault:
        raise UsageError(f"not a join token ({fault}); ask for a new one") from fault
