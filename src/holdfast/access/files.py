"""Names inside a role's run directory, as its children see them.

A Unix socket's path may have 107 bytes, which a directory of a home may exceed, and Xray takes
absolute paths only. Children run in the run directory and say `/proc/self/cwd/...`.
"""

from __future__ import annotations

from typing import Final

HERE: Final = "/proc/self/cwd"
ADMIN: Final = f"{HERE}/envoy-admin.sock"
XRAY_API: Final = f"{HERE}/xray-api.sock"
XRAY_GRPC: Final = f"{HERE}/xray-grpc.sock"
XRAY_XHTTP: Final = f"{HERE}/xray-xhttp.sock"
GATE: Final = f"{HERE}/gate.sock"
