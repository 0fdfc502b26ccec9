"""A planted bug, and the hunt for it: `python -m holdfast.sim.hunt FILE --seed N --seeds N`.

A planted bug is a TOML file: the module, the text that is there, the text to put in its place, and
what it teaches. It is applied to the module's source as it is imported, in a process of its own,
so nothing on disk changes and nothing is cached; this module therefore imports nothing of the
product before it has planted. Then the campaign runs, seed after seed, until a judge complains or
a machine fails its own assertion.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tomllib
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple


class Bug(NamedTuple):
    """A mutation of one module. `like` names the failure of others that it repeats, if it does."""

    name: str
    module: str
    old: str
    new: str
    lesson: str
    like: str


def read_bug(path: Path) -> Bug:
    """A bug from its file. Raises ValueError when it is none."""
    try:
        text = tomllib.loads(path.read_text())
        bug = Bug(
            path.stem,
            text["module"],
            text["old"].strip("\n"),
            text["new"].strip("\n"),
            text.get("lesson", ""),
            text.get("like", ""),
        )
    except (OSError, KeyError, AttributeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} is no planted bug: {error!r}") from error
    if not bug.module.startswith("holdfast.") or not bug.old or bug.old == bug.new:
        raise ValueError(f"{path}: a bug changes some text of a module of holdfast")
    return bug


class _Loader(SourceFileLoader):
    """Compiles a changed source and caches nothing."""

    def __init__(self, name: str, path: str, bug: Bug) -> None:
        super().__init__(name, path)
        self._bug = bug

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode()
        found = source.count(self._bug.old)
        if found != 1:
            raise ValueError(f"{self._bug.name}: its text is {found} times in {fullname}, not once")
        code: CodeType = compile(source.replace(self._bug.old, self._bug.new), self.path, "exec")
        return code


class _Finder(MetaPathFinder):
    """Finds the one module that is to be another."""

    def __init__(self, bug: Bug) -> None:
        self._bug = bug

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname != self._bug.module:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin, self._bug)
        return spec


def plant(bug: Bug) -> None:
    """From now on the module is the changed one. It must not have been imported."""
    if bug.module in sys.modules:
        raise ValueError(f"{bug.module} has been imported already")
    sys.meta_path.insert(0, _Finder(bug))
    importlib.import_module(bug.module)


def hunt(first_seed: int, seeds: int) -> dict[str, object]:
    """Seeds one after the other until something is found."""
    from holdfast.rim.usage import cpu_s
    from holdfast.sim.world.campaign import short_trial

    began = cpu_s()
    for seed in range(first_seed, first_seed + seeds):
        try:
            found = short_trial(seed).run().found
        except Exception as error:  # noqa: BLE001 - whatever a bug makes a machine do is a find
            found = [repr(error)]
        if found:
            what = found[0][:200]
            return {"found": True, "seed": seed, "what": what, "cpu_s": round(cpu_s() - began, 1)}
    return {"found": False, "seed": None, "what": "", "cpu_s": round(cpu_s() - began, 1)}


def main() -> None:
    """Plant, hunt, and say what came of it as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m holdfast.sim.hunt")
    parser.add_argument("file", nargs="?", type=Path, help="a planted bug; none: the honest code")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    if given.file is not None:
        plant(read_bug(given.file))
    sys.stdout.write(json.dumps(hunt(given.seed, given.seeds)) + "\n")


if __name__ == "__main__":
    main()
