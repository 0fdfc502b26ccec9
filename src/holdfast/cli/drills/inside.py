"""Drills that need addresses of their own run in a network namespace of their own."""

from __future__ import annotations

import os
import shutil
import sys

from holdfast.errors import UsageError
from holdfast.rim.process import holdfast_command
from holdfast.sim.access.ground import INSIDE, enter, is_inside


def go_inside() -> None:
    """Return inside a namespace; outside, become this same command inside one.

    Raises UsageError where there are no namespaces.
    """
    if is_inside():
        return
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        raise UsageError("this drill needs unshare and ip (Debian: util-linux, iproute2)")
    command = enter(holdfast_command(*sys.argv[1:]))
    os.execvpe(command[0], command, {**os.environ, INSIDE: "1"})
