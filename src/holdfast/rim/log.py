"""The log of a service: one event a line on stderr, as JSON for programs or as text for people.

| key     | what                                                                       |
|---------|----------------------------------------------------------------------------|
| at      | Unix seconds                                                               |
| level   | debug, info, warning, error, critical                                      |
| service | hq, node, relay, replica, entry, core, provider, bot                       |
| node    | logical name of the server, or the network's domain; empty before a join   |
| event   | `module.what-happened`: the same words for the same event, whatever it is about |
| text    | the sentence                                                               |
| trace   | where a bug was, only with one                                             |

`event` is the sentence without its values, so it is stable as long as the sentence is. Lines of
our own (`hfjoin1...`), keys and ids are no matter for a log: whatever looks like one is cut, in the
text and in the trace, wherever it came from.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from enum import StrEnum
from typing import Final

import msgspec

FORM_VARIABLE: Final = "HOLDFAST_LOG"
"""How an agent's child writes: the agent's own form."""
_EVENT_LETTERS_MAX: Final = 64
_TEXT_LETTERS_MAX: Final = 4_000
_VALUE: Final = re.compile(r"%(?:\.\d+)?[a-z]")
_NO_WORD: Final = re.compile(r"[^a-z0-9]+")
_LINE: Final = re.compile(r"(?i)(?<![a-z0-9])(hf[a-z]{2,8}1)[a-z0-9]{8,}")
"""A line of ours: a token, a grant, a pairing, an operator's key; its kind may be read."""
_LONG: Final = re.compile(r"(?<![A-Za-z0-9])([A-Za-z0-9]{8})[A-Za-z0-9]{18,}")
"""An id, a tag, a key or a subscription's token in hex or base32; no word is as long, and eight
letters are enough to compare with what a page shows. Not at a `\\b`: `dop_v1_` and the like are
letters to it."""
_MIXED: Final = re.compile(
    r"(?<![\w-])(?=[\w-]*[A-Z])(?=[\w-]*[a-z0-9])([A-Za-z0-9_-]{8})[A-Za-z0-9_-]{18,}"
)
"""A token in base64url, such as a bot's; names of ours have no capital letters, and names of
variables nothing else."""
_UUID: Final = re.compile(
    r"(?i)(?<![a-z0-9])([0-9a-f]{8})-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?![a-z0-9])"
)
"""What a device shows an entry (VLESS) is one."""
_PERSON: Final = re.compile(r"(?<![A-Za-z0-9])(?=[0-9a-f]*\d)[0-9a-f]{16}(?![A-Za-z0-9])")
"""A member's or a device's id in the registry: 16 hexadecimal digits."""


class LogForm(StrEnum):
    """How a service writes its log."""

    JSON = "json"
    TEXT = "text"


def start_log(
    level: int, form: LogForm | None = None, *, service: str = "", node: str = ""
) -> None:
    """Log to stderr from now on; children write in the same form.

    Without a form: as the parent does, else as text on a terminal and in JSON anywhere else.
    """
    chosen = form or _inherited()
    os.environ[FORM_VARIABLE] = chosen
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(service, node) if chosen is LogForm.JSON else TextLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)


def start_text(level: int) -> None:
    """Log as text, for this process alone."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _inherited() -> LogForm:
    text = os.environ.get(FORM_VARIABLE, "")
    if text in set(LogForm):
        return LogForm(text)
    return LogForm.TEXT if sys.stderr.isatty() else LogForm.JSON


def name_log(node: str) -> None:
    """Say in every further line who this is: a node learns its name when it joins."""
    for formatter in _json_lines():
        formatter.node = node


def structured(name: str) -> logging.Logger | None:
    """The logger of that name where this process writes its log in JSON."""
    return logging.getLogger(name) if _json_lines() else None


def _json_lines() -> list[JsonLines]:
    found = [handler.formatter for handler in logging.getLogger().handlers]
    return [formatter for formatter in found if isinstance(formatter, JsonLines)]


class Line(msgspec.Struct, omit_defaults=True):
    """One event; see the module. Without defaults every key but `trace` is always there."""

    at: float
    level: str
    service: str
    node: str
    event: str
    text: str
    trace: str = ""


class JsonLines(logging.Formatter):
    """A JSON object for each record."""

    def __init__(self, service: str, node: str) -> None:
        super().__init__()
        self.service = service
        self.node = node

    def format(self, record: logging.LogRecord) -> str:
        line = Line(
            at=round(record.created, 3),
            level=record.levelname.lower(),
            service=self.service,
            node=self.node,
            event=event_of(record),
            text=without_secrets(record.getMessage())[:_TEXT_LETTERS_MAX],
            trace=without_secrets(self.formatException(record.exc_info)) if record.exc_info else "",
        )
        return msgspec.json.encode(line).decode()


class TextLines(logging.Formatter):
    """Time, level, name and sentence, for a person at a terminal."""

    def __init__(self) -> None:
        super().__init__(
            fmt="%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
        )

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def event_of(record: logging.LogRecord) -> str:
    """The event's name: the logger's, and the words of the sentence without its values."""
    where = record.name.removeprefix("holdfast.")
    words = _NO_WORD.sub("-", _VALUE.sub(" ", without_secrets(str(record.msg))).lower()).strip("-")
    return f"{where}.{words or 'fault'}"[:_EVENT_LETTERS_MAX].rstrip("-")


def without_secrets(text: str) -> str:
    """`text` with lines of ours, keys, ids and members cut short."""
    for shape in (_LINE, _UUID, _MIXED):
        text = shape.sub(r"\1...", text)
    return _LONG.sub(r"\1...", _PERSON.sub("...", text))
