"""The log of a service: one object a line, the same keys, the same words, no secret."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from typing import Any

import pytest

from holdfast.crypto.pure import base32
from holdfast.rim.log import JsonLines, event_of, without_secrets

KEYS = ["at", "level", "service", "node", "event", "text"]


def record(text: str, *values: object, name: str = "holdfast.relay") -> logging.LogRecord:
    return logging.LogRecord(name, logging.INFO, __file__, 1, text, values, None)


def line(made: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(JsonLines("relay", "relay-eu-001").format(made))
    return found


def test_every_line_has_the_same_keys() -> None:
    found = line(record("serving %d slots, %d changed", 3, 1))
    assert list(found) == KEYS
    assert found["text"] == "serving 3 slots, 1 changed"
    assert (found["service"], found["node"]) == ("relay", "relay-eu-001")


def test_an_event_keeps_its_name_whatever_it_is_about() -> None:
    one, other = (event_of(record("the role said nothing for %.0f s", n)) for n in (60, 61))
    assert one == other == "relay.the-role-said-nothing-for-s"
    assert event_of(record("%s", "any fault")) == "relay.fault"


def test_a_line_with_a_line_break_stays_one() -> None:
    text = JsonLines("hq", "").format(record("two\nlines %s", "a\r\nb"))
    assert "\n" not in text
    assert json.loads(text)["text"] == "two\nlines a\r\nb"


@pytest.mark.parametrize(
    "secret",
    [
        "hfjoin1" + "q" * 60,
        "hfop1" + "0f" * 32,
        "hfgrant1" + "abcdefgh" * 5,
        "HFPAIR1" + "QPZRY9X8" * 4,
        "ab" * 32,
        base32(bytes(range(32))),
        "9f0a1b2c3d4e5f60",
        "Z" * 43,
        "dop_v1_" + "0a1b2c3d" * 8,
        "token_" + "0a1b2c3d" * 4,
        "123456789:AAHdqTcvCH1vGWJxfSeof_SAs0K5-PALDsaw",
        "a-_Zb3c-d4_e5-f6_g7-h8_i9-j0_Kl-m1_n2-o3_p4",
        "b831381d-6324-4d53-ad4f-8cda48b30811",
    ],
)
def test_secrets_and_ids_are_cut(secret: str) -> None:
    for text in (f"no such token {secret}; ask again", f"({secret})", f"/sub/{secret}"):
        assert secret not in without_secrets(text)
        assert secret[8:] not in without_secrets(text)
    assert secret[8:] not in line(record(f"refused: {secret}"))["text"]
    slug = re.sub(r"[^a-z0-9]+", "-", secret[8:].lower()).strip("-")
    assert slug[:20] not in event_of(record(f"refused: {secret}"))
    assert secret[9:] not in JsonLines("hq", "").format(record("refused: %s", secret))


def test_a_trace_is_cut_as_well() -> None:
    try:
        raise ValueError("bad key " + "c0" * 32)
    except ValueError:
        made = record("a bug")
        made.exc_info = sys.exc_info()
    found = line(made)
    assert "ValueError" in found["trace"]
    assert "c0" * 32 not in found["trace"]


@pytest.mark.parametrize(
    "text",
    [
        "relay-eu-001 serves at 127.11.0.2:7443",
        "unit holdfast-replica-ap-southeast-001-a",
        "set HOLDFAST_OPERATOR_KEY_FILE_SOMEWHERE",
        "day 20783 expired: 42 blobs",
        "replica-ap-elm",
    ],
)
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert without_secrets(text) == text


PROGRAM = """
import logging, sys, warnings
from holdfast.cli.main import run
from holdfast.rim.log import LogForm, start_log
start_log(logging.INFO, LogForm(sys.argv[1]), service="node", node="x")
logging.getLogger("somebody.else").warning("a library speaks")
warnings.warn("and warns")
sys.exit(run(["node", "status", "--dir", "/nowhere/at/all"]))
"""


def test_a_process_writes_nothing_else() -> None:
    """Libraries, warnings and the error that ends it are lines as well."""
    words = [sys.executable, "-c", PROGRAM]
    done = subprocess.run([*words, "json"], capture_output=True, text=True, timeout=60)
    lines = [json.loads(text) for text in done.stderr.splitlines()]
    assert [list(item) for item in lines] == [KEYS] * 3
    assert lines[-1]["event"] == "cli.fault"
    assert "has not joined" in lines[-1]["text"]
    plain = subprocess.run([*words, "text"], capture_output=True, text=True, timeout=60)
    assert "holdfast: /nowhere/at/all has not joined" in plain.stderr
    assert plain.returncode == done.returncode == 2
