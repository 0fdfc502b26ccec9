"""One way to say what most of many measurements do not exceed."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float, digits: int = 2) -> float:
    """The smallest value that at least `share` (0 to 1) of them do not exceed (nearest rank),
    rounded; 0 where there are none."""
    assert 0 < share <= 1
    if not values:
        return 0.0
    return round(sorted(values)[math.ceil(share * len(values)) - 1], digits)
