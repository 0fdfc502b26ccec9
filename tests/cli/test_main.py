"""The front door: fast, one line for an error, one JSON object as the last line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module

import cyclopts
import pytest

from holdfast import __version__
from holdfast.cli import main as front
from holdfast.cli.output import EXIT_BUG, emit_error, next_step
from holdfast.errors import HoldfastError, OperationFault, PeerFault, UsageError

HELP_CPU_S_MAX = 0.6
"""`--help` takes 0.2 s alone on this project's two cores; three times that under load."""


def call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *words], capture_output=True, text=True, timeout=60
    )


def test_help_is_fast_and_imports_no_service() -> None:
    before = os.times()
    done = call("--help")
    after = os.times()
    assert done.returncode == 0
    assert "up" in done.stdout
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < HELP_CPU_S_MAX
    text = (
        "import sys; from holdfast.cli.main import run; run(['--help']);"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('holdfast.')};"
        "sys.exit(' '.join(rooms - {'cli', 'errors'}) or 0)"
    )
    quiet = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert quiet.returncode == 0, quiet.stderr


def test_version_in_both_forms() -> None:
    assert call("version").stdout == f"holdfast {__version__}\n"
    assert json.loads(call("version", "--json").stdout)["version"] == __version__


@pytest.mark.parametrize("words", [("nonsense",), ("version", "--nope"), ("completion", "tcsh")])
def test_a_bad_line_is_one_line_and_status_2(words: tuple[str, ...]) -> None:
    done = call(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("holdfast: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("fuzz", "--inputs", "0"),
        ("fuzz", "--inputs", "10", "--workers", "-1"),
        ("tour", "--time-scale", "-1"),
        ("folder", "frobnicate"),
        ("device", "init", "--locator", "hfloc1garbage", "--dir", "/nowhere/at/all"),
    ],
)
def test_a_wrong_value_is_the_callers_matter(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a bug nor a peer's fault, whatever was typed."""
    assert front.run(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert ".;" not in said


def test_a_bad_line_in_json() -> None:
    done = call("version", "--nope", "--json")
    assert done.returncode == 2
    assert set(json.loads(done.stdout.splitlines()[-1])) >= {"error", "message", "next"}


def test_a_typo_is_answered_with_the_verb() -> None:
    assert "did you mean provider?" in call("provder").stderr


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("no such slot; see holdfast hq slots"), 2),
        (PeerFault("a chain that ends nowhere", code="chain"), 3),
        (OperationFault("HQ is out of reach"), 4),
    ],
)
def test_each_family_has_its_status(
    error: HoldfastError,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_words: object) -> None:
        raise error

    monkeypatch.setattr(front, "call_line", fail)
    assert front.run(["x"]) == status
    assert capsys.readouterr().err == f"holdfast: {error}\n"
    assert front.run(["x", "--json"]) == status
    record = json.loads(capsys.readouterr().out)
    assert record["message"] == str(error)
    assert record["next"]


def test_a_bug_keeps_its_traceback_and_has_its_own_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_words: object) -> None:
        raise AssertionError("two plus two")

    monkeypatch.setattr(front, "call_line", fail)
    assert front.run(["x", "--json"]) == EXIT_BUG
    said = capsys.readouterr()
    assert "Traceback" in said.err
    assert json.loads(said.out)["error"] == "bug"


def test_the_next_step_is_what_follows_the_semicolon() -> None:
    assert next_step(UsageError("taken; choose another")) == "choose another"
    assert next_step(OperationFault("no space")) == "try again"
    assert "log" in next_step(OperationFault("broken", retryable=False))
    assert "version" in next_step(PeerFault("garbage"))


def test_an_error_of_many_lines_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    emit_error(UsageError("one\n  two"), as_json=False)
    assert capsys.readouterr().err == "holdfast: one two\n"


def test_every_mounted_verb_exists() -> None:
    for name, path, group, text in front.COMMANDS:
        module, _, attribute = path.partition(":")
        target = getattr(import_module(module), attribute)
        assert group in front.GROUPS
        assert text.endswith(".")
        if isinstance(target, cyclopts.App):
            assert target.name[0] == name


@pytest.mark.parametrize(
    "shell", ["bash", *(pytest.param(name, marks=pytest.mark.campaign) for name in ("zsh", "fish"))]
)
def test_completion_names_every_verb(shell: str) -> None:
    done = call("completion", shell)
    assert done.returncode == 0, done.stderr
    for name, *_ in front.COMMANDS:
        assert name in done.stdout
