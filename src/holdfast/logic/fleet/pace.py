"""The limits of detection and healing in Unix seconds.

Limits are elapsed seconds; rows and events of the fleet carry Unix seconds, because they must
outlive the process that wrote them. Where a drill makes elapsed time run `scale` times faster, a
limit of 300 elapsed seconds is 300 / `scale` Unix seconds. In production `scale` is 1.

What waits for real machines does not shrink with them: a process boots, and a busy one answers, in
real time however fast a drill's clock runs. Those limits have a floor in real seconds.
"""

from __future__ import annotations

import msgspec

from holdfast import limits
from holdfast.limits import fleet as fleet_limits


class Pace(msgspec.Struct, frozen=True):
    """Every duration the fleet's machines compare with, already scaled."""

    evidence_s: float
    red_s: float
    start_s: float
    black_window_s: float
    silent_s: float
    provider_lost_s: float
    survey_s: float
    spawn_timeout_s: float
    spawn_retry_s: float
    spawn_retry_s_max: float
    spawn_avoid_s: float
    spawn_window_s: float
    standby_silent_s: float
    fill_settle_s: float
    stall_s: float
    address_change_s: float
    record_change_s: float
    intent_kept_s: float
    repay_s: float
    day_s: float
    rebalance_s: float
    follow_s: float
    let_go_s: float


def pace(scale: float = 1.0) -> Pace:
    """The pace of a process whose elapsed time runs `scale` times as fast as the wall."""
    assert scale > 0, "time runs forward"
    floor_s = limits.ANSWER_REAL_S_MIN
    return Pace(
        evidence_s=max(limits.EVIDENCE_S / scale, floor_s),
        red_s=limits.RED_FAILURE_S / scale,
        start_s=max(limits.RED_FAILURE_S / scale, limits.START_REAL_S_MIN),
        black_window_s=limits.BLACK_WINDOW_S / scale,
        silent_s=max(limits.SILENT_S / scale, floor_s),
        provider_lost_s=limits.PROVIDER_LOST_S_MIN / scale,
        survey_s=limits.SURVEY_PERIOD_S / scale,
        spawn_timeout_s=max(limits.SPAWN_TIMEOUT_S / scale, limits.SPAWN_REAL_S_MIN),
        spawn_retry_s=limits.SPAWN_RETRY_S / scale,
        spawn_retry_s_max=limits.SPAWN_RETRY_S_MAX / scale,
        spawn_avoid_s=limits.SPAWN_AVOID_S / scale,
        spawn_window_s=60.0 / scale,
        standby_silent_s=limits.STANDBY_SILENT_S,
        fill_settle_s=max(limits.FILL_SETTLE_S / scale, floor_s),
        stall_s=limits.HEARTBEAT_PERIOD_S / scale,
        address_change_s=limits.ADDRESS_CHANGE_S_MIN / scale,
        record_change_s=limits.RECORD_CHANGE_S_MIN / scale,
        intent_kept_s=limits.INTENT_KEPT_S / scale,
        repay_s=fleet_limits.REPAY_PERIOD_S / scale,
        day_s=86_400.0 / scale,
        follow_s=max(fleet_limits.FOLLOW_S / scale, floor_s),
        let_go_s=max(fleet_limits.LET_GO_S / scale, 2 * floor_s),
        rebalance_s=fleet_limits.REBALANCE_PERIOD_S / scale,
    )
