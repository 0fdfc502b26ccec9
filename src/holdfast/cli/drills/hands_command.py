"""`holdfast drill hands`, and the scan it makes."""

from __future__ import annotations

from holdfast.cli.drills.hands import Hands
from holdfast.cli.drills.play import Keep, play
from holdfast.cli.output import emit
from holdfast.cli.service import clock_of
from holdfast.rim.ports import open_ports


def hands(*, time_scale: float = 15.0, seed: int = 1, keep: Keep = None, json: bool = False) -> int:
    """Set a network up by hand on machines of their own, and lose some of them. As root.

    Each machine is a network namespace with an address. With --keep, transcript.txt says what was
    typed where.

    Parameters
    ----------
    time_scale
        How many of the network's seconds pass in one of yours.
    seed
        What is in the files.
    json
        One JSON object as the last line.
    """
    clock = clock_of(time_scale)
    return play("hands", lambda home: Hands(home, clock, seed).run(), keep=keep, json=json)


def reach(*, host: str, first: int = 1, last: int = 65_535, json: bool = False) -> None:
    """Which TCP ports of a host can be opened from here; a part of `hands`."""
    found = open_ports(host, first, last)
    text = " ".join(map(str, found)) or "none"
    emit({"host": host, "open": found}, as_json=json, text=text)
