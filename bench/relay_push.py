"""How many durable pushes of 4 KiB a relay takes over TLS, with its clients in other processes.

    python bench/relay_push.py [--seconds 5] [--clients 2] [--connections 32] [--blobs 1] [--json]

One relay in this process on a real disk, its limits raised so that they are not what is measured.
Every client process holds `connections` connections with a group each and pushes as fast as the
receipts come back; receipts are not verified here: that is the client's cost, not the relay's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.relay.harness import Pool, today

from holdfast.crypto.blob import seal
from holdfast.crypto.era import Era
from holdfast.fabric.session import Session
from holdfast.relay.main import tune_memory
from holdfast.relay.policy import RelayPolicy
from holdfast.rim.clock import SystemClock
from holdfast.rim.pool_client import PoolClient
from holdfast.wire.codec import pack, unpack
from holdfast.wire.pool import BlobClass, PushReply, PushRequest

PAYLOAD_BYTES = 4_096 - 256


async def client(address: str, roots: list[bytes], slot: bytes, args: argparse.Namespace) -> None:
    """Push until time is up; prints how many blobs and the CPU seconds it took."""
    clock = SystemClock()
    client = PoolClient(address, roots=roots, clock=clock, connections_max=args.connections)
    network = os.urandom(16)
    eras = [Era(os.urandom(32), network) for _ in range(args.connections)]
    sessions = [await Session.open(client, era.access, slot) for era in eras]
    stock = [
        [
            [seal(era, 1, os.urandom(PAYLOAD_BYTES), today()) for _ in range(args.blobs)]
            for _ in range(args.stock)
        ]
        for era in eras
    ]
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    ends_at = time.monotonic() + args.seconds
    cpu = time.process_time()
    latencies: list[float] = []

    async def one(session: Session, rounds: list[list[bytes]]) -> int:
        count = 0
        for blobs in rounds:
            started = time.monotonic()
            if started > ends_at:
                break
            header = PushRequest(session.token, BlobClass.LOG, tuple(map(len, blobs)))
            await client.call("push", header, PushReply, blobs)
            latencies.append(time.monotonic() - started)
            count += len(blobs)
        return count

    started = time.monotonic()
    counts = await asyncio.gather(*(one(s, r) for s, r in zip(sessions, stock, strict=True)))
    latencies.sort()
    result = {
        "blobs": sum(counts),
        "seconds": time.monotonic() - started,
        "cpu_s": time.process_time() - cpu,
        "p50_ms": latencies[len(latencies) // 2] * 1e3,
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1e3,
    }
    print(json.dumps(result), flush=True)


async def serve(args: argparse.Namespace) -> dict[str, float]:
    """Run the relay and the clients; the sum of what they did."""
    policy = RelayPolicy(requests_per_s=1e9, tag_requests_per_s=1e9, tag_requests_burst=1e9)
    with tempfile.TemporaryDirectory(dir=args.dir) as home:
        async with Pool(Path(home), policy=policy) as pool:
            record = await pool.seat(1, 0)
            (server,) = pool.servers.values()
            job = pack([server.seat.addresses[0], list(pool.roots), record.slot])
            command = [sys.executable, __file__, "--job", job.hex(), *sys.argv[1:]]
            pipe = asyncio.subprocess.PIPE
            children = [
                await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
                for _ in range(args.clients)
            ]
            for child in children:
                assert child.stdout is not None
                await child.stdout.readline()
            before = resource.getrusage(resource.RUSAGE_SELF)
            for child in children:
                assert child.stdin is not None
                child.stdin.write(b"go\n")
            results = [json.loads(await child.stdout.readline()) for child in children]  # type: ignore[union-attr]
            after = resource.getrusage(resource.RUSAGE_SELF)
            await asyncio.gather(*(child.wait() for child in children))
            figures = server.running.store.figures()
    blobs = sum(r["blobs"] for r in results)
    seconds = max(r["seconds"] for r in results)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "pushes_per_s": blobs / args.blobs / seconds,
        "blobs_per_s": blobs / seconds,
        "seconds": seconds,
        "server_cpu_us_per_push": used * 1e6 / (blobs / args.blobs),
        "client_cpu_us_per_push": sum(r["cpu_s"] for r in results) * 1e6 / (blobs / args.blobs),
        "p50_ms": max(r["p50_ms"] for r in results),
        "p99_ms": max(r["p99_ms"] for r in results),
        "commit_p99_ms": figures.commit_p99_ms,
    }


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--blobs", type=int, default=1)
    parser.add_argument("--stock", type=int, default=1_000)
    parser.add_argument("--dir", default=None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--job", default="")
    args = parser.parse_args()
    if args.job:
        address, roots, slot = unpack(
            tuple[str, list[bytes], bytes], bytes.fromhex(args.job), bytes_max=65_536
        )
        uvloop.run(client(address, roots, slot, args))
        return
    tune_memory()
    result = uvloop.run(serve(args))
    if args.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:24} {value:12.1f}")


if __name__ == "__main__":
    main()
