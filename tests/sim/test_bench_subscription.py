"""The benchmark's judge, and a small run of the whole of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from holdfast.sim.bench_subscription import SubscriptionBench, credential_of


@pytest.mark.system
def test_a_small_crowd(tmp_path: Path) -> None:
    report = asyncio.run(SubscriptionBench(tmp_path).run(200, 4))
    assert (report.full, report.not_modified, report.wrong) == (200, 200, 0)
    assert report.recorded == 200


def test_the_judge_counts_what_is_not_this_devices(tmp_path: Path) -> None:
    """Control: another device's credential, a refusal, a whole answer where 304 is due."""
    bench = SubscriptionBench(tmp_path)
    head = b'HTTP/1.1 200 OK\r\netag: "' + b"0" * 32 + b'"\r\n\r\n'
    bench._judge(1, False, head + credential_of(1).encode())
    assert bench._wrong == 0
    bench._judge(1, False, head + credential_of(2).encode())
    bench._judge(1, False, head.replace(b"200", b"503") + credential_of(1).encode())
    bench._judge(1, True, head)
    assert bench._wrong == 3
