"""Outline's dynamic key (`ssconf://`): the app shows the error of such an answer to its user.

Outline speaks Shadowsocks; entries speak VLESS (ADR 0037). So there is no server to give, and
saying so beats an import that succeeds and never connects.
"""

from __future__ import annotations

import msgspec

from holdfast.logic.access.render.negotiate import Client
from holdfast.logic.access.render.notice import NOBODY
from holdfast.logic.access.subscription import SubscriptionView

ADVICE = "This network speaks VLESS: import the same link in Hiddify, v2rayNG, sing-box or mihomo."


def outline(view: SubscriptionView, _client: Client) -> str:
    """The error object of a dynamic key."""
    notice = view.endpoints[0].name if view.credential == NOBODY and view.endpoints else ""
    error = {"message": notice or ADVICE, "details": "" if notice else "No Shadowsocks here."}
    return msgspec.json.encode({"error": error}).decode()
