"""What a machine does between two looks, from the kernel's own files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.rim import usage
from holdfast.rim.usage import MachineMeter, MachineUsage

CARDS = """Inter-|   Receive                            |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo: {lo} 0 0 0 0 0 0 0 {lo} 0 0 0 0 0 0 0
  eth0: {got} 0 0 0 0 0 0 0 {sent} 0 0 0 0 0 0 0
  wg0:{got} 0 0 0 0 0 0 0 {sent} 0 0 0 0 0 0 0
"""


def write(root: Path, *, used_s: float, got: int, sent: int, cgroup: bool = True) -> None:
    (root / "proc/net").mkdir(parents=True, exist_ok=True)
    (root / "proc/net/dev").write_text(CARDS.format(lo=got * 99, got=got, sent=sent))
    if cgroup:
        (root / "sys/fs/cgroup").mkdir(parents=True, exist_ok=True)
        text = f"usage_usec {used_s * 1e6:.0f}\nuser_usec 1\n"
        (root / "sys/fs/cgroup/cpu.stat").write_text(text)
    else:
        ticks = int(used_s * os.sysconf("SC_CLK_TCK"))
        (root / "proc/stat").write_text(f"cpu  {ticks} 0 0 9999 5 0 0 0\ncpu0 1 0 0 1\n")


@pytest.mark.parametrize("cgroup", [True, False])
def test_rates_are_between_two_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroup: bool
) -> None:
    now = [100.0]
    monkeypatch.setattr(usage.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(usage.os, "cpu_count", lambda: 4)
    meter = MachineMeter(tmp_path)
    write(tmp_path, used_s=50.0, got=1_000, sent=5_000, cgroup=cgroup)
    assert meter.take() == MachineUsage(), "one look is no rate"
    now[0] += 10.0
    write(tmp_path, used_s=70.0, got=6_000, sent=25_000, cgroup=cgroup)
    found = meter.take()
    assert found.busy == pytest.approx(0.5)
    assert (found.received_bytes_per_s, found.sent_bytes_per_s) == (1_000.0, 4_000.0)
    now[0] += 10.0
    write(tmp_path, used_s=1.0, got=0, sent=0, cgroup=cgroup)
    assert meter.take() == MachineUsage(), "counters that began anew"


def test_a_mute_kernel_says_nothing(tmp_path: Path) -> None:
    meter = MachineMeter(tmp_path)
    meter.take()
    assert meter.take() == MachineUsage()


def test_this_machine_is_measured() -> None:
    meter = MachineMeter()
    meter.take()
    sum(n * n for n in range(2_000_000))
    assert meter.take().busy > 0
