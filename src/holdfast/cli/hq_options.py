"""Options that verbs about a headquarters share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

Dir = Annotated[Path, Parameter(name="--dir", help="Directory of the headquarters.")]
Json = Annotated[bool, Parameter(name="--json", help="One JSON object as the last line.")]
