"""Subscriptions in the words of each client: one module per format, all of them pure.

| module     | for                                            | body                         |
|------------|------------------------------------------------|------------------------------|
| links      | any VLESS client; v2rayNG, Hiddify (base64)    | one `vless://` line each    |
| sing_box   | sing-box, SFA, SFI, SFM, SFT, Karing           | JSON, by version             |
| mihomo     | mihomo, FlClash, Clash Verge, Stash            | YAML                         |
| xray       | v2rayNG, Happ as a custom configuration        | Xray JSON                    |
| outline    | Outline (`ssconf://`)                          | JSON error: see there        |
| negotiate  | which of them a request wants                  |                              |
| headers    | what the answer's head says                    |                              |
| notice     | what a device that is not served gets          |                              |

What each client takes and refuses is quoted in the modules and held by tests. A body is the same
for all devices of a cell but for the credential; callers render once with `CREDENTIAL_BLANK` and
fill it in (`fill`).
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from holdfast.logic.access.render.links import links
from holdfast.logic.access.render.mihomo import mihomo
from holdfast.logic.access.render.negotiate import Client, Format
from holdfast.logic.access.render.outline import outline
from holdfast.logic.access.render.sing_box import sing_box
from holdfast.logic.access.render.xray import xray
from holdfast.logic.access.subscription import SubscriptionView

CREDENTIAL_BLANK: Final = "00000000-0000-4000-8000-00000000c0de"
"""Stands in a skeleton for the device's credential: a UUID like any other, so that every format
renders it as it will render the real one."""


class Skeleton(msgspec.Struct, frozen=True):
    """A body without a credential, and its media type."""

    text: bytes
    media_type: str
    base64: bool = False


_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json; charset=utf-8"
_YAML: Final = "text/yaml; charset=utf-8"
_Renderer = Callable[[SubscriptionView, Client], str]
_RENDERERS: Final[Mapping[Format, tuple[_Renderer, str]]] = {
    Format.LINKS: (links, _TEXT),
    Format.V2RAY: (links, _TEXT),
    Format.SING_BOX: (sing_box, _JSON),
    Format.MIHOMO: (mihomo, _YAML),
    Format.XRAY_JSON: (xray, _JSON),
    Format.OUTLINE: (outline, _JSON),
}


def skeleton(view: SubscriptionView, client: Client) -> Skeleton:
    """What `client` shall get. `view` is for showing (`notice.shown`) and its credential is
    `CREDENTIAL_BLANK`, or any to render it whole. Not for HTML, which is a page."""
    renderer, media_type = _RENDERERS[client.format]
    text = renderer(view, client).encode()
    return Skeleton(text, media_type, client.format is Format.V2RAY)


def fill(rendered: Skeleton, credential: str) -> bytes:
    """The body for the device with this credential.

    Base64 is the standard alphabet, padded, on one line: v2rayNG tries URL-safe too, mihomo never.
    """
    assert len(credential) in (0, len(CREDENTIAL_BLANK))
    text = rendered.text.replace(CREDENTIAL_BLANK.encode(), credential.encode())
    return binascii.b2a_base64(text, newline=False) if rendered.base64 else text


__all__ = ["CREDENTIAL_BLANK", "Client", "Format", "Skeleton", "fill", "skeleton"]
