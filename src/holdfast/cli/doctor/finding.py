"""What a doctor finds: one line each, and for everything that is not well, the next step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec


class Level(StrEnum):
    """`BAD` needs a person; `NOTE` is worth knowing."""

    OK = "ok"
    NOTE = "note"
    BAD = "bad"


class Finding(msgspec.Struct, frozen=True):
    """`check` names what was looked at (`clock`, `disk`, ...), `subject` whose, if there are
    several. `next` is empty only where all is well."""

    check: str
    level: Level
    text: str
    next: str = ""
    subject: str = ""


def ok(check: str, text: str, subject: str = "") -> Finding:
    return Finding(check, Level.OK, text, subject=subject)


def note(check: str, text: str, next: str, subject: str = "") -> Finding:
    return Finding(check, Level.NOTE, text, next, subject)


def bad(check: str, text: str, next: str, subject: str = "") -> Finding:
    return Finding(check, Level.BAD, text, next, subject)


def needs_person(findings: Iterable[Finding]) -> bool:
    """Whether anything is bad."""
    return any(finding.level is Level.BAD for finding in findings)


def as_text(title: str, findings: Sequence[Finding]) -> str:
    """One line a finding, bad ones in capitals, the next step below."""
    lines = [title]
    for item in findings:
        mark = item.level.upper() if item.level is Level.BAD else item.level.value
        subject = f"{item.subject}: " if item.subject else ""
        lines.append(f"  {mark:4} {item.check:12} {subject}{item.text}")
        if item.next:
            lines.append(f"       {'':12} -> {item.next}")
    count = sum(item.level is Level.BAD for item in findings)
    lines.append(f"{count} of {len(findings)} need you" if count else "nothing needs you")
    return "\n".join(lines)
