"""Style as a test: what a reviewer would say every week, said by a machine.

Lines <= 100, functions <= 70 lines, modules <= 600 lines, a docstring on every module, no bare
`except`, no swallowed `Exception`, no unfinished notes, no `print` outside `cli`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SRC = REPOSITORY / "src" / "holdfast"
LINE_COLUMNS_MAX = 100
FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 600

_NOTE = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
_MACHINE = re.compile("/wo" + "rk/|/ro" + "ot/|/ho" + r"me/[a-z]+/")

Found = list[str]
Rule = Callable[[str, ast.Module], Found]


def long_lines(source: str, _tree: ast.Module) -> Found:
    """Lines over the limit."""
    lines = enumerate(source.splitlines(), 1)
    return [f"{n}: {len(text)} columns" for n, text in lines if len(text) > LINE_COLUMNS_MAX]


def long_functions(_source: str, tree: ast.Module) -> Found:
    """Functions over the limit, decorators not counted."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                found.append(f"{node.lineno}: {node.name} has {lines} lines")
    return found


def long_module(source: str, _tree: ast.Module) -> Found:
    """A module over the limit."""
    lines = len(source.splitlines())
    return [f"1: module of {lines} lines"] if lines > MODULE_LINES_MAX else []


def undocumented_module(_source: str, tree: ast.Module) -> Found:
    """A module without a docstring."""
    return [] if ast.get_docstring(tree) else ["1: module without a docstring"]


def swallowed_errors(_source: str, tree: ast.Module) -> Found:
    """`except:` of any kind, and `except Exception` that does nothing."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        if node.type is None:
            found.append(f"{node.lineno}: bare except")
            continue
        broad = {"Exception", "BaseException"} & {
            name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)
        }
        if broad and all(_does_nothing(statement) for statement in node.body):
            found.append(f"{node.lineno}: swallows {broad.pop()}")
    return found


def _does_nothing(statement: ast.stmt) -> bool:
    constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return constant or isinstance(statement, ast.Pass | ast.Continue)


def unfinished_notes(source: str, _tree: ast.Module) -> Found:
    """Notes to self that were never read again."""
    lines = enumerate(source.splitlines(), 1)
    return [f"{n}: {text.strip()}" for n, text in lines if _NOTE.search(text)]


def prints(_source: str, tree: ast.Module) -> Found:
    """Calls of print and pprint."""
    return [
        f"{node.lineno}: print"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"print", "pprint"}
    ]


def machine_paths(source: str, _tree: ast.Module) -> Found:
    """Paths of one particular machine."""
    lines = enumerate(source.splitlines(), 1)
    return [f"{n}: {text.strip()}" for n, text in lines if _MACHINE.search(text)]


RULES: tuple[Rule, ...] = (
    long_lines,
    long_functions,
    long_module,
    undocumented_module,
    swallowed_errors,
    unfinished_notes,
    prints,
    machine_paths,
)

RULES_OF_TESTS: tuple[Rule, ...] = (
    long_lines,
    long_module,
    undocumented_module,
    swallowed_errors,
    unfinished_notes,
    machine_paths,
)


def offences(root: Path, rules: tuple[Rule, ...]) -> Found:
    """Every offence under `root`, as `path:line: what`."""
    found = []
    for path in sorted(root.rglob("*.py")):
        source = path.read_text()
        tree = ast.parse(source)
        for rule in rules:
            if rule is prints and path.relative_to(root).parts[0] == "cli":
                continue
            found += [f"{path.relative_to(REPOSITORY)}:{text}" for text in rule(source, tree)]
    return found


def test_the_product_is_tidy() -> None:
    found = offences(SRC, RULES)
    assert not found, "\n".join(found)


def test_the_tests_are_tidy() -> None:
    found = offences(REPOSITORY / "tests", RULES_OF_TESTS)
    assert not found, "\n".join(found)


def test_pins_name_no_machine() -> None:
    """A pin is `name==version`: no URL, no path, nothing of the machine that made it."""
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins
    for line in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+", line), line


def test_scripts_are_executable() -> None:
    for script in ("bin/holdfast", "bin/check", "bin/test", ".ci/run"):
        path = REPOSITORY / script
        assert path.stat().st_mode & 0o111, f"{script} is not executable"
        assert path.read_text().startswith("#!"), f"{script} names no interpreter"


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (long_lines, "x = '" + "y" * 100 + "'"),
        (long_functions, "def f():\n" + "    x = 1\n" * 70),
        (long_functions, "async def f():\n" + "    x = 1\n" * 70),
        (long_module, "x = 1\n" * 601),
        (undocumented_module, "x = 1\n"),
        (swallowed_errors, "try:\n    f()\nexcept:\n    raise\n"),
        (swallowed_errors, "try:\n    f()\nexcept Exception:\n    pass\n"),
        (swallowed_errors, "try:\n    f()\nexcept (ValueError, BaseException):\n    ...\n"),
        (swallowed_errors, "for x in y:\n  try:\n    f()\n  except Exception:\n    continue\n"),
        (unfinished_notes, "# TO" + "DO: later\n"),
        (unfinished_notes, "x = 1  # FIX" + "ME\n"),
        (prints, "def f():\n    print('x')\n"),
        (machine_paths, "PATH = '/wo" + "rk/main'\n"),
    ],
)
def test_a_planted_offence_is_found(rule: Rule, source: str) -> None:
    assert rule(source, ast.parse(source))


def test_clean_text_passes() -> None:
    source = '"""A module."""\n\n\ndef f() -> None:\n' + "    x = 1\n" * 69
    tree = ast.parse(source)
    assert [text for rule in RULES for text in rule(source, tree)] == []
