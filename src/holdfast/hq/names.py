"""Headquarters' names on a primary name server, and what is said of it (seed 004 §7.3)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.errors import UsageError
from holdfast.hq.parts import Parts
from holdfast.hq.restored import last_restore
from holdfast.rim.files import read_file

if TYPE_CHECKING:
    from holdfast.rim.dns.primary import Publisher


async def make_publisher(parts: Parts, directory: Path) -> Publisher | None:
    """What keeps the configured primary current; None when there is none. Raises UsageError."""
    access = parts.config.dns_primary
    if access is None:
        return None
    # Its library brings an HTTP client along: a sixth of the time in which headquarters starts.
    from holdfast.rim.dns.primary import Primary, Publisher

    secret = read_file(directory / access.key_file)
    if secret is None:
        raise UsageError(f"{directory / access.key_file} is missing: the key of {access.server}")
    primary = Primary(access, secret.decode("ascii", "replace"), parts.config.domain)

    async def report(trouble: str) -> None:
        verb, detail = ("dns.behind", {"error": trouble}) if trouble else ("dns.current", {})
        await parts.audit.line(verb, access.server, **detail)

    epoch = (await last_restore(parts.store)).epoch
    return Publisher(parts.zone, primary, parts.clock, report, epoch=epoch)
