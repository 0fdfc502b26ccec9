"""A device: its servers, its outbox, its clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from holdfast.cli.doctor import links, place, trust
from holdfast.cli.doctor.finding import Finding, bad, note, ok
from holdfast.device.folders import Figures
from holdfast.device.state import KEY_FILE
from holdfast.device.view import DeviceStatus, DeviceView
from holdfast.rim.clock import Clock

REFUSED_STEP = (
    "holdfast device locator on a device you trust, holdfast device follow LINE here, then sync"
)


async def examine(directory: Path, clock: Clock) -> tuple[str, list[Finding]]:
    """Title and findings. Raises UsageError when there is no device."""
    view = DeviceView(directory)
    try:
        status, folders = view.status(), view.folders()
        locator, servers = view.home_locator(), _servers(view)
    finally:
        view.close()
    skews = links.Skews()
    found = await place.place(directory, [directory / KEY_FILE, directory / "device.db"])
    found += place.descriptors(0)
    found += trust.pins(locator.roots, clock.wall())
    found += await links.hq_link(locator.hq, locator.roots, None, clock, skews)
    found += await links.server_links(servers, locator.roots, clock, skews)
    found += await links.names(servers, locator.resolvers, locator.domain)
    found += outbox(status)
    for folder in folders:
        found += shared(folder)
    found += skews.findings()
    return f"device {status.name} in {directory}", found


def _servers(view: DeviceView) -> list[links.Server]:
    """The six of the record that is followed; hints from the locator before there is one."""
    return [links.Server(seat.name, seat.node, seat.addresses) for seat in view.home_seats()]


def outbox(status: DeviceStatus) -> Iterator[Finding]:
    """What waits here, and proofs of lies."""
    if status.outbox_blobs:
        text = f"{status.outbox_blobs} blobs ({status.outbox_bytes:,} bytes) wait for replicas"
        yield note("outbox", text, "holdfast folder sync sends them")
    else:
        yield ok("outbox", "empty: everything is on replicas")
    proofs = status.evidence + status.record_conflicts
    if proofs:
        text = f"{proofs} proofs that a server or headquarters lied"
        yield bad("evidence", text, "show them to the operator: holdfast device status --json")


def shared(folder: Figures) -> Iterator[Finding]:
    """One folder since its last sync."""
    name = folder.name
    if folder.record_refused:
        text = f"the newest slot record is refused: {folder.record_refused}"
        yield bad("record", text, REFUSED_STEP, name)
    if folder.gaps or folder.unread:
        text = f"{folder.gaps} gaps in its log, {folder.unread} operations unreadable"
        yield bad("folder", text, "sync a device that was there before; it fills them", name)
    if folder.update_needed:
        yield bad("folder", "written by a newer version", "update Holdfast here", name)
    if folder.path and not Path(folder.path).is_dir():
        text = f"{folder.path} is gone"
        yield bad("folder", text, "bring it back, or holdfast folder moved", name)
