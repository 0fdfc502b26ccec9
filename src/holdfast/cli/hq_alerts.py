"""`holdfast hq alerts`, `acknowledge`, `metrics`: what calls for a person, and figures."""

from __future__ import annotations

from datetime import UTC, datetime

from holdfast.cli.hq_call import call_hq, read_hq
from holdfast.cli.hq_options import Dir, Json
from holdfast.cli.output import EXIT_NO, EXIT_OK, emit
from holdfast.hq.verbs import Done
from holdfast.hq.watch_admin import Acknowledgement, AlertItem, AlertItems
from holdfast.logic.fleet.alerts import Severity


def alerts(*, home: Dir, json: Json = False) -> int:
    """What calls for a person now, and what to type. Status 1 while something grave waits."""
    found = call_hq(home, "GET", "/alerts", None, AlertItems)
    text = "\n".join(map(_text, found.items)) or "nothing calls for you"
    emit(found, as_json=json, text=text)
    waits = [i for i in found.items if i.severity is not Severity.NOTICE and not i.acknowledged_by]
    return EXIT_NO if waits else EXIT_OK


def acknowledge(id: str, /, *, home: Dir, json: Json = False) -> None:
    """Say that you have seen an alert: it is quiet until it ends.

    Parameters
    ----------
    id
        As `holdfast hq alerts` shows it.
    """
    done = call_hq(home, "POST", "/alerts/acknowledge", Acknowledgement(id), Done)
    emit(done, as_json=json, text=f"{done.subject} is acknowledged")


def metrics(*, home: Dir) -> None:
    """Print what Prometheus would scrape from this headquarters."""
    emit(None, as_json=False, text=read_hq(home, "/metrics").decode().rstrip())


def _text(item: AlertItem) -> str:
    since = datetime.fromtimestamp(item.began_at, UTC).strftime("%d %b %H:%M UTC")
    seen = f"  seen by {item.acknowledged_by}" if item.acknowledged_by else ""
    return (
        f"{item.severity.value:8}  {item.id}  since {since}  for the {item.whose}{seen}\n"
        f"          {item.subject} {item.what}\n"
        f"          {item.step}"
    )
