"""The story in words: one sentence for each thing HQ saw, decided or did.

The sentence leaves out its subject, which the page shows before it: "relay-eu-001" · "is down:
2 servers have failed to reach it for 302 s".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final

from holdfast.logic.effects import Audit


class Kind(StrEnum):
    """HQ saw a thing, decided on one, or did one."""

    SAW = "saw"
    DECIDED = "decided"
    DID = "did"


Detail = Mapping[str, Any]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _seconds(value: float) -> str:
    return f"{value:,.0f} s"


def _watched(detail: Detail) -> str:
    said = []
    if detail["clients"]:
        said.append(f"{_count(detail['clients'], 'client')} cannot reach it")
    if detail["witnesses"]:
        said.append(f"{_count(len(detail['witnesses']), 'peer')} failed to reach it")
    return "is watched: " + (" and ".join(said) or "a peer doubts it")


def _degraded(detail: Detail) -> str:
    if detail["because"] == "gray":
        return "is degraded: it answers, but cannot store as it should"
    peers = _count(len(detail["witnesses"]), "peer")
    return f"is degraded: {peers} failed {detail['failures']} checks in a row"


def _down(detail: Detail) -> str:
    if detail["because"] == "gone":
        return "is out: its node was revoked or has left"
    peers = _count(len(detail["witnesses"]), "independent peer")
    return f"is down: {peers} have failed to reach it for {_seconds(detail['failed_s'])}"


def _seated(detail: Detail) -> str:
    where = f"on {detail['provider']} in {detail['region']}"
    if not detail["replaces"]:
        return f"is served by node {detail['node'][:8]} {where}"
    why = {"heal": "replaces the dead", "repay": "moves from", "drain": "takes over from"}
    verb = why.get(detail["reason"], "replaces")
    former = f"{detail['replaces'][:8]} ({detail['former_provider']})"
    text = f"has a new node: {detail['node'][:8]} {where} {verb} {former}"
    return f"{text} after {_seconds(detail['failed_s'])}" if detail["failed_s"] else text


def _lost(detail: Detail) -> str:
    servers = _count(len(detail["servers"]), "server")
    return f"is lost as a whole: {servers}, {_count(detail['groups'], 'group')} affected"


def _intended(detail: Detail) -> str:
    text = f"gets a new machine on {detail['provider']} in {detail['region']}"
    reason = {
        "launch": "to begin with",
        "heal": "because it is down",
        "repay": "to repay diversity debt",
        "drain": "because its machine is leaving",
    }[detail["reason"]]
    debt = detail["debt_slots"]
    owing = f"; {_count(debt, 'slot')} will owe diversity" if debt else ""
    return f"{text}, {reason}{owing}"


SENTENCES: Final[dict[str, tuple[Kind, Callable[[Detail], str]]]] = {
    "server.green": (Kind.SAW, lambda d: f"is well again (was {d['before']})"),
    "server.yellow": (Kind.SAW, _watched),
    "server.orange": (Kind.SAW, _degraded),
    "server.red": (Kind.DECIDED, _down),
    "server.black": (Kind.DECIDED, lambda d: "is lost with its provider"),
    "server.accused": (Kind.SAW, lambda d: f"is accused by {d['by']}: it {d['text']}"),
    "server.misbehaved": (Kind.SAW, lambda d: f"is proven to have lied: it {d['text']}"),
    "server.seated": (Kind.DID, _seated),
    "server.moved": (Kind.SAW, lambda d: f"now answers at {', '.join(d['addresses'])}"),
    "provider.lost": (Kind.DECIDED, _lost),
    "provider.back": (Kind.SAW, lambda d: f"is back after {_seconds(d['lost_s'])}"),
    "freeze.began": (
        Kind.DECIDED,
        lambda d: (
            f"is frozen: {d['dead']} of {d['fleet']} servers over "
            f"{_count(len(d['providers']), 'provider')} look dead at once, so HQ suspects itself"
        ),
    ),
    "freeze.ended": (Kind.DECIDED, lambda d: f"is free again: {d['because']}"),
    "fleet.launched": (Kind.DECIDED, lambda d: f"gets {_count(d['servers'], 'new server')}"),
    "spawn.prepared": (
        Kind.DECIDED,
        lambda d: (
            f"would be replaced on {d['provider']} in {d['region']}; nothing is ordered yet"
            if d
            else "would be replaced, but no provider is up"
        ),
    ),
    "spawn.intended": (Kind.DECIDED, _intended),
    "spawn.ordered": (Kind.DID, lambda d: f"has a machine ordered from {d['provider']}"),
    "spawn.refused": (Kind.SAW, lambda d: f"got no machine from {d['provider']}: {d['error']}"),
    "spawn.failed": (Kind.DECIDED, lambda d: f"gives its new machine up: {d['why']}"),
    "spawn.dropped": (Kind.DECIDED, lambda d: f"needs no new machine: {d['why']}"),
    "node.joined": (Kind.SAW, lambda d: f"has node {d['node'][:8]} joining on {d['provider']}"),
    "node.leaving": (Kind.SAW, lambda d: f"will lose its node: {d['reason']}"),
    "node.retired": (Kind.DID, lambda d: f"retired node {d['node'][:8]}: {d['why']}"),
    "machine.reaped": (Kind.DID, lambda d: f"gave back a machine at {d['provider']}"),
    "machine.unknown": (Kind.SAW, lambda d: f"runs a machine nobody ordered: {d['resource']}"),
    "machine.vanished": (
        Kind.SAW,
        lambda d: f"has the machine of {d['server']} no more, and we did not give it back",
    ),
    "slots.created": (Kind.DID, lambda d: f"and five others now carry slots in {d['region']}"),
    "slots.recorded": (Kind.DID, lambda d: f"is in {_count(d['slots'], 'new slot record')}"),
    "rollout.ordered": (Kind.DECIDED, lambda d: f"gets release {d['release'] or 'as installed'}"),
    "rollout.kept": (Kind.SAW, lambda d: f"is well on release {d['release'] or 'as installed'}"),
    "rollout.regression": (Kind.SAW, lambda d: f"is not well on its new release: {d['why']}"),
    "rollout.backed": (Kind.SAW, lambda d: f"is back on release {d['release'] or 'as installed'}"),
    "rollout.back": (Kind.DECIDED, lambda d: f"goes back everywhere: {d['reason']}"),
    "debt.recorded": (
        Kind.DECIDED,
        lambda d: f"shares {d['provider']} with others of {_count(d['new'], 'slot')}: a debt",
    ),
    "debt.repaid": (Kind.DID, lambda d: f"is diverse again in {_count(d['repaid'], 'slot')}"),
    "rebalance.began": (
        Kind.DECIDED,
        lambda d: f"is being evened out: the fullest server has {d['imbalance']} times the mean",
    ),
    "rebalance.paced": (
        Kind.DECIDED,
        lambda d: f"is evened out at {d['moves_per_min']} moves a minute",
    ),
    "rebalance.ended": (
        Kind.DID,
        lambda d: (
            f"is evened out, {d['before']} to {d['after']} of the mean, "
            f"{_count(d['moved'], 'slot')} moved: {d['why']}"
        ),
    ),
    "slot.moving": (Kind.DID, lambda d: f"takes slot {d['slot'][:8]} from {d['from']}"),
    "slot.moved": (
        Kind.SAW,
        lambda d: f"holds all of slot {d['slot'][:8]}; {d['former']} lets it go",
    ),
    "rotation.asked": (
        Kind.DECIDED,
        lambda d: f"will have {_count(len(d['servers']), 'machine')} renewed in their turn",
    ),
    "rotation.scheduled": (
        Kind.DECIDED,
        lambda d: f"renews machines every {d['every_days']:g} days, {d['at_once']} at a time",
    ),
    "rotation.unscheduled": (Kind.DECIDED, lambda d: "renews no machines by itself"),
    "rotation.began": (Kind.DID, lambda d: f"gets a new machine: it is {d['age_days']} days old"),
    "rotation.ended": (Kind.DID, lambda d: f"has a new machine in place of {d['node'][:8]}"),
    "dns.pointed": (Kind.DID, lambda d: f"resolves to node {d['node'][:8]}"),
    "dns.refused": (Kind.SAW, lambda d: f"could not be changed in DNS: {d['error']}"),
}


def kind_of(verb: str) -> Kind:
    """Saw, decided or did; what other parts of HQ log is what they did."""
    known = SENTENCES.get(verb)
    return known[0] if known else Kind.DID


def sentence(line: Audit) -> str:
    """The sentence for an audit line, without its subject. Lines of others, or of an older HQ,
    may lack what the sentence wants: then the verb must do."""
    known = SENTENCES.get(line.verb)
    plain = line.verb.replace(".", " ")
    try:
        return known[1](line.detail) if known else plain
    except (KeyError, TypeError, ValueError):
        return plain
