"""`holdfast drill`: one fault or one malice each, on real processes, judged from outside.

Each drill works in a directory of its own, which is left behind when the drill fails, and ends with
status 1 when what it checks did not hold. Seeds choose victims and orders; keys are real. A drill
is a function in a module of its own, imported when it is called.
"""

from __future__ import annotations

from typing import Final

import cyclopts

app = cyclopts.App(name="drill", help_format="plaintext")

DRILLS: Final[tuple[tuple[str, str, str], ...]] = (
    ("access", "access:access", "A client's way while cores, entries and paths turn."),
    ("accounting", "accounting:accounting", "Count every byte once, through restarts."),
    ("any-core", "any_core:any_core", "Every verb through any core; then headquarters dies too."),
    ("cell", "cell:cell", "A cell is compromised, isolated and made anew; others feel nothing."),
    ("crash", "crash:crash", "Kill servers and a device under load; nothing may be lost."),
    ("disk-full", "disk_full:disk_full", "Fill a relay's disk, and make room again. As root."),
    ("drain", "drain:drain", "Take machines out under clients; no session drops."),
    ("etcd", "etcd:etcd", "Kill, hang and cut off leaders and members of etcd."),
    ("false-red", "false_red:false_red", "Forged reports and lost packets, in simulated time."),
    ("forged-reports", "forged:forged_reports", "Report healthy servers dead, over and over."),
    ("groups", "groups:groups", "Add, remove and rekey at once, in any order: one state."),
    ("hands", "hands_command:hands", "A network set up by hand on namespaces. As root."),
    ("heal", "heal:heal", "Machines die for good, one after another, under clients."),
    ("hq-restore", "hq_restore:hq_restore", "Destroy headquarters, restore it from a snapshot."),
    ("join-race", "join_race:join_race", "Many nodes race for each join token."),
    ("lateral", "lateral:lateral", "Disk and memory of one node against all others."),
    ("liars", "liars:liars", "Servers that lie in every way; each is named, nothing is lost."),
    ("lose-device", "lose_device:lose_device", "Destroy any one of three devices of two people."),
    ("meet", "meet:meet", "Three devices and no server; two move at once and meet again."),
    ("observer", "observer:observer", "What a wiretap and a prober see of the access layer."),
    (
        "onboard",
        "onboard:onboard",
        "Entry and core, each from a token; headquarters leaves.",
    ),
    ("owner", "owner:owner", "Others saturate a core; its owner goes first, quotas cut exactly."),
    ("phoenix", "phoenix:phoenix", "A cluster and headquarters lost, disks too; rebuilt whole."),
    ("provider-leak", "provider_leak:provider_leak", "A provider's key leaks; who has it is seen."),
    ("rebalance", "rebalance:rebalance", "Even the load under clients; no session drops."),
    ("revoke", "revoke:revoke", "Exclude a core while clients download through it."),
    ("rogue-hq", "rogue_hq:rogue_hq", "Steal headquarters' keys: forked log, rogue relay, DNS."),
    ("rotate", "rotate:rotate", "Every entry address is turned over under clients that refresh."),
    ("slowloris", "slowloris:slowloris", "Hang thousands of connections on one relay."),
    ("stolen", "stolen:stolen", "Attack the disk of any one powered-off device or server."),
    ("upgrade", "upgrade:upgrade", "The next version up and back under clients; poison stops."),
)
"""(name, where in `holdfast.cli.drills`, one line of help)."""

HELPERS: Final = (
    ("hostile", "slowloris:hostile"),
    ("liars-shard", "liars:liars_shard"),
    ("meet-device", "meet_device:meet_device"),
    ("reach", "hands_command:reach"),
    ("patient", "slowloris:patient"),
)
"""Processes that drills start."""

for _name, _where, _text in DRILLS:
    app.command(f"holdfast.cli.drills.{_where}", name=_name, help=_text)
for _name, _where in HELPERS:
    app.command(f"holdfast.cli.drills.{_where}", name=_name, show=False)
