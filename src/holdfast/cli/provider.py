"""`holdfast provider`: a hosting provider whose servers are processes of this machine; and the
keys of providers, at headquarters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import cyclopts

from holdfast.cli.output import emit
from holdfast.cli.provider_credential import app as credential
from holdfast.cli.provider_key import app as key
from holdfast.cli.service import clock_of, host_port, start_service_log, stop_signal
from holdfast.rim.cloud.daemon import Daemon, provider_key
from holdfast.rim.cloud.machines import AgentCommand, Machines
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.files import lock_directory
from holdfast.rim.log import LogForm
from holdfast.rim.process import holdfast_command, lead_group

app = cyclopts.App(name="provider", help_format="plaintext")
app.command(credential)
app.command(key)


def agent_command(provider: str, port: int, time_scale: float) -> AgentCommand:
    """The command line of the agent on a new server of `provider`."""

    def command(home: Path, address: str) -> Sequence[str]:
        return holdfast_command(
            "node",
            "run",
            f"--dir={home}",
            f"--token-file={home / 'token'}",
            f"--listen={address}:{port}",
            f"--provider={provider}",
            f"--time-scale={time_scale}",
        )

    return command


@app.command
def serve(
    *,
    dir: Path,
    name: str,
    listen: str = "127.0.0.1:0",
    subnet: str = "127.11",
    regions: str = "eu,ap",
    node_port: int = 7443,
    time_scale: float = 1.0,
    keep_disks: bool = False,
    log_level: str = "info",
    log: LogForm | None = None,
) -> None:
    """Serve the cloud API until stopped; servers that were not deleted start again.

    Parameters
    ----------
    dir
        Where the servers, the key and the provider's own log live.
    name
        Name of the provider.
    listen
        Loopback host:port of the API.
    subnet
        First two or three numbers of the loopback addresses of the servers.
    regions
        Regions that can be ordered, comma-separated.
    node_port
        TLS port of every server.
    time_scale
        Elapsed seconds per real second, passed on to the servers.
    keep_disks
        Move the disk of a deleted server to `gone/` instead of deleting it.
    log_level
        debug, info, warning or error.
    log
        json or text; by default text on a terminal and json elsewhere.
    """
    start_service_log(log_level, log, "provider", name)
    host, port = host_port(listen)

    with lock_directory(dir, "a provider"):
        machines = Machines(
            dir,
            subnet=subnet,
            regions=tuple(filter(None, regions.split(","))),
            command=agent_command(name, node_port, time_scale),
            clock=clock_of(time_scale),
            keep_disks=keep_disks,
        )
        entropy = SystemEntropy()
        daemon = Daemon(dir, name, provider_key(dir, entropy), machines, entropy)
        asyncio.run(_serve(daemon, host, port))


async def _serve(daemon: Daemon, host: str, port: int) -> None:
    lead_group()
    async with stop_signal() as stop:
        await daemon.start(host, port)
        emit(None, as_json=False, text=f"provider listens on {daemon.listen}")
        await stop.wait()
        await daemon.stop()
