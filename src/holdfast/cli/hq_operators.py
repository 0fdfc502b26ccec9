"""`holdfast hq operator`, `pending`, `approve`, `drop`: persons, and what two of them decide."""

from __future__ import annotations

import cyclopts
import msgspec

from holdfast.cli.hq_call import KEY_VARIABLE, call_hq, part
from holdfast.cli.hq_options import Dir, Json
from holdfast.cli.output import emit
from holdfast.hq.gate import Document
from holdfast.hq.operators import OperatorItems, OperatorMade, OperatorOrder, PendingItems
from holdfast.hq.verbs import Done, OperatorRole

operator = cyclopts.App(name="operator", help="Persons who run the network: add, list, remove.")


@operator.command
def add(
    name: str,
    *,
    home: Dir,
    role: OperatorRole = OperatorRole.OPERATOR,
    replace: bool = False,
    json: Json = False,
) -> None:
    """Give a person a key; it is shown once.

    Parameters
    ----------
    name
        How the audit log calls them.
    role
        owner, operator, auditor or participant.
    replace
        They have a key: it ends, and the role is this one from now on.
    """
    order = OperatorOrder(name, role, replace)
    made = call_hq(home, "POST", "/operators", order, OperatorMade)
    text = f"{made.name} is {made.role}; their key, shown once:\n{made.key}\nused as {KEY_VARIABLE}"
    emit(made, as_json=json, text=text)


@operator.command(name="list")
def show(*, home: Dir, json: Json = False) -> None:
    """Everybody with a key."""
    found = call_hq(home, "GET", "/operators", None, OperatorItems)
    lines = [f"{row.name:20} {row.role:12} added by {row.added_by}" for row in found.items]
    text = "\n".join(lines) or "nobody yet; whoever owns the directory is the only operator"
    emit(found, as_json=json, text=text)


@operator.command
def remove(name: str, *, home: Dir, json: Json = False) -> None:
    """Take a person's key away."""
    done = call_hq(home, "DELETE", f"/operators/{part(name)}", None, Done)
    emit(done, as_json=json, text=f"{done.subject} has no key any more")


def pending(*, home: Dir, json: Json = False) -> None:
    """What waits for a second person."""
    found = call_hq(home, "GET", "/pending", None, PendingItems)
    lines = [
        f"{row.id}  {row.author} asks: {row.verb} {row.subject} {row.body}" for row in found.items
    ]
    emit(found, as_json=json, text="\n".join(lines) or "nothing waits")


def agree(id: str, /, *, home: Dir, json: Json = False) -> None:
    """Agree to what another operator asked for; it is done at once."""
    done = call_hq(home, "POST", f"/pending/{part(id)}/agree", None, dict[str, msgspec.Raw])
    record = {key: msgspec.json.decode(value) for key, value in done.items()}
    lines = [f"{key}: {value}" for key, value in record.items()]
    emit(record, as_json=json, text="\n".join(["done", *lines]))


def drop(id: str, /, *, home: Dir, json: Json = False) -> None:
    """Say no to what waits, one's own too."""
    done = call_hq(home, "POST", f"/pending/{part(id)}/drop", None, Done)
    emit(done, as_json=json, text=f"dropped: {done.subject}")


def openapi(*, home: Dir) -> None:
    """The operator's port as an OpenAPI document, one JSON object."""
    found = call_hq(home, "GET", "/openapi.json", None, Document)
    emit(found, as_json=True, text="")
