"""A plain line of a service means the same with the parser and without it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from holdfast.cli.main import build, run
from holdfast.cli.output import EXIT_USAGE
from holdfast.cli.plain import SERVICES, plain_call
from holdfast.rim.cloud.account import TOKEN_VARIABLE
from holdfast.wire.control import KNOBS_FILE

ROLE = (
    "--dir=/d", "--listen=127.0.0.1:7443", "--role=replica", "--region=eu", "--chain=/c",
    "--key=/k", "--identity=/i", "--roots=/r",
)  # fmt: skip
LINES = (
    ("relay", "serve", *ROLE),
    ("relay", "serve", *ROLE, "--time-scale=60", "--requests-per-s=1e6", "--knobs=/x=y"),
    ("relay", "wait", "--dir=/d"),
    ("node", "run", "--dir=/a b"),
    ("node", "run", "--dir=/d", "--token-file=t", "--listen=:1", "--log=json", "--time-scale=0.5"),
    ("hq", "serve", "--dir=home", "--log-level=debug"),
)


def parsed(line: Sequence[str]) -> tuple[object, dict[str, object]]:
    """What the parser would call."""
    function, bound, _ = build().parse_args(list(line), exit_on_error=False, print_error=False)
    return function, dict(bound.arguments)


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_it_means_the_same(line: tuple[str, ...]) -> None:
    call = plain_call(line)
    assert isinstance(call, partial)
    assert (call.func, call.keywords) == parsed(line)


def test_the_environment_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_DIR", "/told")
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    monkeypatch.setenv(KNOBS_FILE, "/knobs")
    for line in (("node", "run"), ("node", "run", "--dir=/d"), LINES[0], LINES[1]):
        call = plain_call(line)
        assert isinstance(call, partial)
        assert (call.func, call.keywords) == parsed(line)
    call = plain_call(("node", "run"))
    assert isinstance(call, partial)
    assert call.keywords == {"dir": Path("/told"), "token": "secret"}


@pytest.mark.parametrize(
    "line",
    [
        (),
        ("relay",),
        ("relay", "serve", *ROLE[1:]),
        ("relay", "serve", *ROLE, "--dir=/e"),
        ("relay", "serve", *ROLE, "--nobody=knows"),
        ("relay", "serve", *ROLE, "--time-scale=fast"),
        ("relay", "serve", *ROLE, "--role=king"),
        ("relay", "serve", *ROLE, "--name="),
        ("relay", "serve", *ROLE, "--time-scale", "60"),
        ("relay", "serve", "--help"),
        ("node", "run", "/d"),
        ("hq", "serve", "--dir=home", "--no-page"),
        ("hq", "serve", "--dir=home", "--page=false"),
        ("hq", "status", "--dir=home"),
    ],
)
def test_the_parser_has_every_other_line(line: tuple[str, ...]) -> None:
    assert plain_call(line) is None


def test_a_wrong_line_of_a_service_is_answered_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["hq", "serve", "--dir=home", "--log=loud"]) == EXIT_USAGE
    assert "loud" in capsys.readouterr().err


@pytest.mark.parametrize("path", SERVICES.values())
def test_a_service_starts_without_the_parser(path: str) -> None:
    """Nor any other library for looks; of a server's agent, not even one for serving."""
    module = path.partition(":")[0]
    unwanted = {"cyclopts", "rich", "jinja2", "prometheus_client"}
    if module.endswith("node_run"):
        unwanted |= {"uvicorn", "starlette"}
    code = f"import sys, holdfast.cli.main, {module}; print(*{unwanted} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not found.stdout.strip()
