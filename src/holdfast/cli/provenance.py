"""Which code printed a figure: the commit of the checkout it runs from."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from holdfast import __version__


@cache
def commit() -> str:
    """Abbreviated commit of the checkout this package lies in, else the released version."""
    for folder in Path(__file__).resolve().parents:
        if (folder / ".git").is_dir() and (folder / "pyproject.toml").is_file():
            return _head(folder / ".git")
    return f"v{__version__}"


def _head(git: Path) -> str:
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref: "):
        return head[:12]
    name = head.removeprefix("ref: ")
    if (git / name).is_file():
        return (git / name).read_text().strip()[:12]
    packed = git / "packed-refs"
    lines = packed.read_text().splitlines() if packed.is_file() else []
    found = [line.split()[0] for line in lines if line.endswith(f" {name}")]
    return found[0][:12] if found else f"v{__version__}"
