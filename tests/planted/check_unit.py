"""Whether the unit tests of a module notice the bugs planted in it: they should not.

    .venv/bin/python tests/planted/check_unit.py [FILE ...]

For each bug the tests beside its module run with the bug planted, in a process of its own. Status 1
when any of them notices: such a bug needs no campaign to be found, and has no place here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from holdfast.sim.hunt import read_bug

HERE = Path(__file__).parent
LOGIC = "tests/logic"
FLEET = [
    f"{LOGIC}/test_fleet_{name}.py"
    for name in ("observer", "tiers", "allocation", "healing", "crashes", "growth")
]
UNIT = {
    "holdfast.logic.pool": [f"{LOGIC}/pool"],
    "holdfast.logic.fleet": FLEET,
    "holdfast.logic.trust": [f"{LOGIC}/test_join.py", f"{LOGIC}/trust"],
}
RUN = (
    "import sys; from pathlib import Path; from holdfast.sim.hunt import plant, read_bug; "
    "plant(read_bug(Path(sys.argv[1]))); import pytest; "
    "sys.exit(pytest.main(['-x', '-q', '-p', 'no:cacheprovider', *sys.argv[2:]]))"
)


def notices(path: Path) -> bool:
    """Whether a unit test fails with this bug planted."""
    module = read_bug(path).module
    tests = next(tests for prefix, tests in UNIT.items() if module.startswith(prefix))
    words = [sys.executable, "-c", RUN, str(path), *tests]
    return (
        subprocess.run(words, cwd=HERE.parents[1], capture_output=True, check=False).returncode != 0
    )


def main() -> int:
    """Check the files named, or all."""
    files = [Path(name) for name in sys.argv[1:]] or sorted(HERE.glob("*.toml"))
    noticed = 0
    for path in files:
        found = notices(path)
        noticed += found
        sys.stdout.write(f"{path.stem:<32} {'NOTICED' if found else 'passes the unit tests'}\n")
        sys.stdout.flush()
    return 1 if noticed else 0


if __name__ == "__main__":
    sys.exit(main())
