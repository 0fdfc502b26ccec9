"""One Xray as a process of its own: `python -m holdfast.access.xray_process CONFIG`.

The PyPI wheel is a library; `startFromJSON` blocks, takes SIGTERM as its end, and keeps its own
threads. It runs apart so that its death is an exit status and its memory its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

MISSING = 69
"""EX_UNAVAILABLE: the wheel is not installed."""


def main() -> int:
    """Run Xray until it is told to stop."""
    try:
        import xray
    except ImportError as error:
        sys.stderr.write(f"Xray is missing ({error}); install holdfast[access]\n")
        return MISSING
    xray.startFromJSON(Path(sys.argv[1]).read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
