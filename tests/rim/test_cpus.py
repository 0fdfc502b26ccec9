"""Processors of a machine and of a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.rim.cpus import cpus


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with eight."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)))


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000\n", 8),
        ("50000 100000\n", 1),
        ("150000 100000\n", 2),
        ("99900000 100000\n", 8),
        ("nonsense", 8),
        ("", 8),
    ],
)
def test_a_quota_bounds_what_affinity_allows(tmp_path: Path, quota: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert cpus(tmp_path / "cpu.max") == expected


def test_without_control_groups_affinity_counts(tmp_path: Path) -> None:
    assert cpus(tmp_path / "none") == 8
