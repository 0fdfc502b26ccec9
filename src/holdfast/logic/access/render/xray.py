"""Xray JSON as a subscription: what `xray_json` makes, with what v2rayNG wants besides.

v2rayNG takes an object for a custom configuration when it has `inbounds`, `outbounds` and
`routing`; `remarks` names it in the list.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.logic.access.render.negotiate import Client
from holdfast.logic.access.subscription import SubscriptionView
from holdfast.logic.access.xray_json import xray_json

SOCKS_PORT: Final = 10_808
"""Where v2rayNG's and v2rayN's own configurations listen."""


def xray(view: SubscriptionView, _client: Client) -> str:
    """A whole configuration."""
    config = xray_json(view, socks_port=SOCKS_PORT)
    named = {"remarks": view.title, **config, "routing": {"domainStrategy": "AsIs", "rules": []}}
    return msgspec.json.encode(named).decode()
