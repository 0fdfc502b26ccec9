"""`holdfast bench`: how fast it is, measured on this machine beside what people use instead."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated

import cyclopts
import msgspec
import uvloop

from holdfast.cli.contest.run import Contest
from holdfast.cli.contest.run import Report as ContestReport
from holdfast.cli.drills.inside import go_inside
from holdfast.cli.output import EXIT_NO, EXIT_OK, emit
from holdfast.errors import UsageError
from holdfast.logic.access.model import Transport
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SeededEntropy, SystemEntropy
from holdfast.sim import load
from holdfast.sim.bench_access import AccessBench
from holdfast.sim.bench_allocate import Bench as Allocate
from holdfast.sim.bench_dns import DnsBench
from holdfast.sim.bench_relay import Bench, Plan, Report
from holdfast.sim.bench_subscription import SubscriptionBench
from holdfast.sim.bench_subscription import serve as serve_subscriptions

app = cyclopts.App(name="bench", help_format="plaintext")
ALLOCATE_SERVERS_MIN = 200
DNS_NAMES_MAX = 65_536
DISK = Path("/var/tmp")
"""A disk by convention, where /tmp may be memory."""


@app.command
def relay(
    *,
    sessions: int = 10_000,
    seconds: float = 10.0,
    clients: int = 2,
    in_flight: int = 512,
    nats_streams: int = 1,
    seed: int = 1,
    where: Annotated[Path, cyclopts.Parameter(name="--dir")] = DISK,
    json: bool = False,
) -> int:
    """Durable pushes of 4 KiB into one relay over TLS, beside NATS JetStream.

    Parameters
    ----------
    sessions
        TLS sessions held open, and pushed over in turn.
    seconds
        How long to push.
    clients
        Client processes.
    in_flight
        Pushes under way at any time, of all clients together.
    nats_streams
        JetStream streams the same load is spread over.
    seed
        Same seed, same keys and blobs.
    where
        Directory on the disk to measure.
    json
        One JSON object as the last line.
    """
    if min(sessions, clients, in_flight, nats_streams) < 1 or seconds <= 0:
        raise UsageError("--sessions, --clients, --in-flight and --seconds are positive")
    plan = Plan(sessions, seconds, clients, in_flight, nats_streams, seed)
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=where) as home:
        bench = Bench(Path(home), plan, SystemClock(), SeededEntropy(seed))
        report = uvloop.run(bench.run())
    emit(report, as_json=json, text=_text(report))
    whole = report.receipts_valid == report.pushes > 0 and not report.missing
    return EXIT_OK if whole and report.sessions_held == sessions else EXIT_NO


@app.command
def folder(
    *,
    tree: Path,
    rounds: int = 3,
    large: bool = False,
    direct: bool = False,
    time_scale: float = 1.0,
    where: Annotated[Path, cyclopts.Parameter(name="--dir")] = DISK,
    json: bool = False,
) -> int:
    """A tree's first sync to a second device, beside Syncthing and restic.

    Parameters
    ----------
    tree
        The tree; it is copied first and never written to.
    rounds
        Rounds of all contenders; medians are reported.
    large
        Afterwards sync 2 GiB of noise and a sparse file of 10 GiB, for the devices' memory.
    direct
        From device to device: two friends whose pool has ended; beside Syncthing.
    time_scale
        How fast the servers' clocks run; for trying the bench out, not for figures.
    where
        Directory on the disk to measure; holds several copies of the tree.
    json
        One JSON object as the last line.
    """
    if not tree.is_dir() or rounds < 1:
        raise UsageError("--tree is a directory and --rounds positive")
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=where) as home:
        contest = Contest(
            Path(home) / "contest",
            tree.resolve(),
            SystemClock(),
            SystemEntropy(),
            large=large,
            direct=direct,
            time_scale=time_scale,
        )
        report = asyncio.run(contest.run(rounds))
    emit(report, as_json=json, text=_contest_text(report))
    return EXIT_OK


@app.command
def access(
    *,
    rounds: int = 21,
    megabytes: int = 100,
    requests: int = 300,
    sessions: int = 1_000,
    transport: Transport = Transport.GRPC,
    json: bool = False,
) -> int:
    """A client through entry and core, beside the same client through plain Xray servers.

    Parameters
    ----------
    rounds
        Downloads by each way, in turn; figures are medians.
    megabytes
        Of each download, MiB.
    requests
        Small requests by each way, for latency.
    sessions
        Connections opened through the chain and held at once.
    transport
        Of the clients, the same for both ways.
    json
        One JSON object as the last line.
    """
    if min(rounds, megabytes, requests, sessions) < 1:
        raise UsageError("at least one of each")
    go_inside()
    clock, entropy = SystemClock(), SystemEntropy()
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as home:
        bench = AccessBench(Path(home), clock, entropy, transport)
        figures = asyncio.run(bench.run(rounds, megabytes, requests, sessions))
    found = msgspec.to_builtins(figures)
    text = "\n".join(f"  {key:<22} {value}" for key, value in found.items())
    emit(figures, as_json=json, text=text)
    return EXIT_OK if figures.held else EXIT_NO


@app.command
def subscription(
    *,
    devices: int = 100_000,
    in_flight: int = 16,
    where: Annotated[Path, cyclopts.Parameter(name="--dir")] = DISK,
    json: bool = False,
) -> int:
    """Subscriptions from one HQ process, each device with a token of its own.

    Parameters
    ----------
    devices
        Each asks twice: once for the whole, once with the validator it got.
    in_flight
        Clients at a time; each asks again as soon as it is answered.
    where
        Directory on the disk to measure.
    json
        One JSON object as the last line.
    """
    if min(devices, in_flight) < 1:
        raise UsageError("--devices and --in-flight are positive")
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=where) as home:
        figures = uvloop.run(SubscriptionBench(Path(home)).run(devices, in_flight))
    found = msgspec.to_builtins(figures)
    text = "\n".join(f"  {key:<24} {value}" for key, value in found.items())
    emit(figures, as_json=json, text=text)
    return EXIT_OK if figures.held else EXIT_NO


@app.command(show=False)
def subscription_server(
    *, where: Annotated[Path, cyclopts.Parameter(name="--dir")], devices: int
) -> None:
    """The server process of `bench subscription`, told what to do over stdin and stdout."""
    uvloop.run(serve_subscriptions(where, devices))


def _contest_text(report: ContestReport) -> str:
    lines = [f"{report.files} files, {report.bytes} bytes", f"ours       {report.ours_s:8.1f} s"]
    if report.syncthing_s is not None:
        lines.append(f"Syncthing  {report.syncthing_s:8.1f} s, {report.ratio_to_syncthing} of ours")
    if report.restic_backup_s is not None and report.restic_restore_s is not None:
        both = report.restic_backup_s + report.restic_restore_s
        lines.append(f"restic     {both:8.1f} s, {report.ratio_to_restic} of ours")
    lines.append(
        f"a small change: p50 {report.small_change_p50_ms:.0f} ms, at most"
        f" {report.small_change_max_ms:.0f} ms; {report.rss_mb:.0f} MB a device"
    )
    if report.large_s is not None:
        lines.append(f"large files: {report.large_s:.1f} s, {report.large_rss_mb:.0f} MB a device")
    return "\n".join([*lines, *report.left_out])


@app.command
def allocate(
    *, users: int = 2_000_000, servers: int = 3_000, seed: int = 1, json: bool = False
) -> int:
    """Users onto relays and replicas of five unequal providers, by every rule of allocation.

    Parameters
    ----------
    users
        Users to place, in the regions of seed 004 §11.4.
    servers
        Relays and replicas together, half of each; a twentieth of them nearly full.
    seed
        Which are where, and which are full.
    json
        One JSON object as the last line.
    """
    if users < 1 or servers < ALLOCATE_SERVERS_MIN:
        raise UsageError(f"--users from 1, --servers from {ALLOCATE_SERVERS_MIN}")
    report = Allocate(users, servers, seed, SystemClock()).run()
    text = (
        f"{report.users} users in {report.seconds} s, {report.violations} rules broken, "
        f"imbalance {report.imbalance}, {report.rss_mb:.0f} MB"
    )
    emit(report, as_json=json, text=text)
    return EXIT_OK if report.held else EXIT_NO


@app.command
def dns(*, names: int = 3_000, json: bool = False) -> int:
    """New addresses for every name at once: our own name server, and Knot by RFC 2136.

    Parameters
    ----------
    names
        Names of servers, all of which move.
    json
        One JSON object as the last line.
    """
    if not 0 < names <= DNS_NAMES_MAX:
        raise UsageError(f"--names from 1 to {DNS_NAMES_MAX}")
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=DISK) as home:
        report = asyncio.run(DnsBench(Path(home), SystemClock(), SystemEntropy()).run(names))
    text = f"{report.names} names moved in {report.seconds} s, {report.wrong} wrong"
    if report.rfc2136_seconds is not None:
        text += f"; at Knot in {report.rfc2136_seconds} s, {report.rfc2136_wrong} wrong"
    emit(report, as_json=json, text=text + (f"\n{report.left_out}" if report.left_out else ""))
    return EXIT_OK if report.held else EXIT_NO


@app.command(show=False)
def client() -> None:
    """A client process of `bench relay`, told what to do over stdin and stdout."""
    uvloop.run(load.serve())


def _text(report: Report) -> str:
    lines = [
        f"{report.sessions_held} sessions held; {report.pushes_per_s:.0f} durable pushes/s, "
        f"p50 {report.push_p50_ms:.1f} ms, p99 {report.push_p99_ms:.1f} ms, "
        f"{report.rss_mb:.0f} MB",
        f"{report.receipts_valid} of {report.pushes} receipts valid; after SIGKILL "
        f"{report.missing} blobs missing",
    ]
    if report.nats_pushes_per_s is None:
        lines.append(f"NATS was left out: {report.nats_left_out}")
    else:
        ratio = report.ratio_to_nats or 0.0
        lines.append(f"NATS JetStream {report.nats_pushes_per_s:.0f}/s: ours is {ratio:.1f} times")
    if report.complaint:
        lines.append(f"first complaint: {report.complaint}")
    return "\n".join(lines)
