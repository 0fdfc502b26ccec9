"""`holdfast relay`: the relay and replica role. An agent runs it; people run `holdfast node`."""

from __future__ import annotations

import cyclopts

from holdfast.cli.plain import described
from holdfast.cli.relay_role import VARIABLES, serve, wait

app = cyclopts.App(name="relay", help_format="plaintext")
app.command(wait)
app.command(described(serve, VARIABLES))
