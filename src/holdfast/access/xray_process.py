"""One Xray as a process of its own: `python -m holdfast.access.xray_process CONFIG`.

The PyPI wheel is a library; `startFromJSON` blocks, takes SIGTERM as its end, and keeps its own
threads. It runs apart so that its death is an exit status and its memory its own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from holdfast.rim.cpus import coarse_sleeps

MISSING = 69
"""EX_UNAVAILABLE: the wheel is not installed."""
SLACK_S: Final = 0.001
"""While Go works, its monitor wakes up every 20 microseconds; nothing in a proxy needs that, and
on few processors it takes turns with what does the work (ADR 0049)."""


def main() -> int:
    """Run Xray until it is told to stop."""
    coarse_sleeps(SLACK_S)  # before Go starts its threads, which is when it is loaded
    try:
        import xray
    except ImportError as error:
        sys.stderr.write(f"Xray is missing ({error}); install holdfast[access]\n")
        return MISSING
    xray.startFromJSON(Path(sys.argv[1]).read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
