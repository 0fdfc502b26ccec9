"""The verbs of `holdfast relay` (`cli.plain`): the role, as an agent runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import uvloop

from holdfast.cli.main import call_line
from holdfast.cli.service import clock_of, place_of
from holdfast.errors import PeerFault, UsageError
from holdfast.limits import REQUESTS_PER_S_MAX
from holdfast.logic.fleet.model import Role
from holdfast.relay.main import serve as serve_role
from holdfast.relay.policy import RelayConfig, RelayPolicy
from holdfast.rim.files import read_file
from holdfast.rim.process import read_first
from holdfast.wire.codec import unpack_json
from holdfast.wire.control import KNOBS_FILE, Begin
from holdfast.wire.release import Knobs

KNOBS_BYTES_MAX: Final = 65_536
VARIABLES: Final = {"knobs": KNOBS_FILE}


def wait(*, dir: Path) -> None:
    """Load everything, then wait on stdin for the options of `serve`, and serve.

    A machine that stands by has this running: when it is called, it serves at once.

    Parameters
    ----------
    dir
        Directory of blobs, as for serve.
    """
    begin = read_first(Begin)
    if begin is not None:
        call_line(("relay", "serve", f"--dir={dir}", *begin.options))


def serve(
    *,
    dir: Path,
    listen: str,
    role: Role,
    region: str,
    chain: Path,
    key: Path,
    identity: Path,
    roots: Path,
    name: str = "",
    network: str = "",
    time_scale: float = 1.0,
    requests_per_s: float = REQUESTS_PER_S_MAX,
    knobs: Path | None = None,
) -> None:
    """Serve as a relay or replica, told what to do over stdin and stdout.

    Parameters
    ----------
    dir
        Directory of blobs; made when missing. One process at a time.
    listen
        host:port of the clients' port.
    role
        relay forgets what replicas have confirmed; replica keeps everything.
    region
        Where this server stands.
    chain
        Certificate chain in PEM, leaf first.
    key
        The leaf's private key in PEM.
    identity
        The node's Ed25519 identity: 32 bytes.
    roots
        Pinned network roots in PEM.
    name
        The logical server's name, for the log.
    network
        Network id in hex; refuse a certificate of another one.
    time_scale
        Elapsed seconds per real second, for drills.
    requests_per_s
        Requests a second of everybody together.
    knobs
        Settings of a release, JSON; its agent says where they are.
    """
    clock_of(time_scale)
    host, port, network_id = place_of(listen, network)
    config = RelayConfig(
        state=dir,
        host=host,
        port=port,
        role=role,
        region=region,
        chain=chain,
        key=key,
        identity=identity,
        roots=roots,
        name=name,
        network=network_id,
        time_scale=time_scale,
        policy=_policy(requests_per_s, knobs),
    )
    uvloop.run(serve_role(config))


def _policy(requests_per_s: float, knobs: Path | None) -> RelayPolicy:
    """Raises UsageError for a bad rate, and for a file that is no settings."""
    if requests_per_s <= 0:
        raise UsageError("--requests-per-s is positive")
    policy = RelayPolicy(requests_per_s=requests_per_s)
    if knobs is None:
        return policy
    try:
        told = unpack_json(Knobs, read_file(knobs) or b"", bytes_max=KNOBS_BYTES_MAX)
        return policy.turned(told)
    except PeerFault as fault:
        raise UsageError(f"{knobs}: {fault}") from fault
