"""Large buffers go back to the system when they are freed, whatever was freed before."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading
if sys.argv[1] == "frugal":
    from holdfast.rim.memory import be_frugal
    if not be_frugal():
        sys.exit(3)
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
del_me = bytes(24_000_000); del del_me
together = threading.Barrier(12)
def work():
    together.wait()  # each in an arena of its own, however fast the machine is
    kept = []
    for _ in range(60):
        large = [bytes(1_000_000) for _ in range(3)]
        kept.append(bytes(5_000))
        del large
    done.append(kept)
done = []
before = rss()
threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(rss() - before)
"""


def held_bytes(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=False
    )
    if done.returncode == 3:
        pytest.skip("another C library")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_buffers_go_back() -> None:
    frugal = held_bytes("frugal")
    assert frugal < 12_000_000, "what is kept, and a little"
    assert held_bytes("plain") > 2 * frugal, "as it is otherwise"
