"""What the tour found out, and whether that is what was promised."""

from __future__ import annotations

from typing import Final

import msgspec

TIERS: Final = ("yellow", "orange", "red", "black")
CLIENTS_MIN: Final = 12


class TourReport(msgspec.Struct):
    """Filled in while the story goes on; `verdict` reads it at the end."""

    files: int = 0
    bytes: int = 0
    clients: int = 0
    mismatches: int = -1
    acked: int = 0
    acked_lost: int = -1
    tiers: tuple[str, ...] = ()
    redundancy_min: int = 3
    redundancy_after: int = 0
    diversity_debt: int = 0
    """At its peak, in seats."""
    diversity_debt_after: int = -1
    refilled_without_client: bool = False
    restored_from_refilled_only: bool = False
    dns_moved: int = 0
    """Names that DNS answered differently after the loss, each as the slot records say."""
    dns_wrong: int = -1
    audit_lines: int = 0
    audit_breaks: int = -1
    spawns: int = 0
    """Machines ordered after the loss, by the providers' own logs."""
    time_scale: float = 1.0
    seconds: float = 0.0
    seed: int = 0
    verdict: str = ""


def failures(report: TourReport) -> list[str]:
    """Every promise that did not hold, in words; empty is success."""
    checks = (
        (report.clients >= CLIENTS_MIN, f"only {report.clients} clients were live"),
        (report.mismatches == 0, f"{report.mismatches} paths differ"),
        (report.acked > 0, "no client had anything acknowledged"),
        (report.acked_lost == 0, f"{report.acked_lost} acknowledged blobs are gone"),
        (
            set(report.tiers) >= set(TIERS),
            f"tiers seen: {', '.join(report.tiers) or 'none'}; expected all of {', '.join(TIERS)}",
        ),
        (report.redundancy_min == 2, f"redundancy fell to {report.redundancy_min}, not 2"),
        (report.redundancy_after == 3, f"redundancy came back to {report.redundancy_after} of 3"),
        (report.diversity_debt > 0, "no diversity debt was recorded while a provider was away"),
        (report.diversity_debt_after == 0, "diversity debt was not repaid"),
        (report.refilled_without_client, "clients were running while replicas refilled"),
        (report.restored_from_refilled_only, "the restore did not rest on refilled replicas alone"),
        (report.dns_moved > 0, "DNS did not move"),
        (report.dns_wrong == 0, f"{report.dns_wrong} names lead elsewhere than HQ says"),
        (report.audit_breaks == 0, f"the audit chain breaks in {report.audit_breaks} places"),
    )
    return [text for holds, text in checks if not holds]


def table(report: TourReport) -> str:
    """The end of the story, for a person."""
    rows = (
        ("folder", f"{report.files:,} files, {report.bytes / 1e6:,.1f} MB"),
        ("live clients", f"{report.clients}"),
        ("paths that differ", f"{report.mismatches}"),
        ("acknowledged, then lost", f"{report.acked_lost} of {report.acked}"),
        ("tiers seen", ", ".join(tier.upper() for tier in report.tiers)),
        ("copies: lowest, after", f"{report.redundancy_min} of 3, {report.redundancy_after} of 3"),
        ("diversity debt: peak, after", f"{report.diversity_debt}, {report.diversity_debt_after}"),
        ("machines ordered", f"{report.spawns}"),
        ("replicas refilled without a client", "yes" if report.refilled_without_client else "no"),
        ("DNS names moved, wrong", f"{report.dns_moved}, {report.dns_wrong}"),
        ("audit lines, breaks", f"{report.audit_lines}, {report.audit_breaks}"),
        ("took", f"{report.seconds:.0f} s, time x{report.time_scale:g}"),
    )
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)
