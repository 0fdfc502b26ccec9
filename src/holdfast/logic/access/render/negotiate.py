"""Which format a request wants: by its path, by `Accept`, by `User-Agent`.

HTML goes to nobody who does not ask for text/html, whatever its name. Hiddify calls itself "like
ClashMeta v2ray sing-box" and gets links: its fork of sing-box lags behind (hiddify-app #1668).
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

import msgspec


class Format(StrEnum):
    """The last part of `/sub/<token>/<format>`."""

    V2RAY = "v2ray"
    LINKS = "links"
    SING_BOX = "sing-box"
    MIHOMO = "mihomo"
    XRAY_JSON = "xray-json"
    OUTLINE = "outline"
    HTML = "html"


SING_BOX_NEWEST: Final = (1, 12)
"""What a sing-box of unknown version is taken for: its profile holds for 1.12, 1.13 and 1.14."""


class Client(msgspec.Struct, frozen=True):
    """Who asks, as far as it changes the answer. Equal clients get equal bodies."""

    format: Format
    sing_box_legacy: bool = False
    """Older than 1.12, where DNS servers and rules were written another way."""
    xhttp: bool = True
    """Whether it may be shown XHTTP lines: one unknown `type` fails a whole import elsewhere."""


_HIDDIFY: Final = re.compile(r"^hiddify", re.I)
_MIHOMO: Final = re.compile(
    r"^(flclash|mihomo|clash(-verge|-nyanpasu|x meta|[-.]?meta)|clash\.meta/|koala-clash)", re.I
)
_CLASH: Final = re.compile(r"^(clash|stash)", re.I)
_SING_BOX: Final = re.compile(r"^(sf[aimt]\b|karing|sing-box)", re.I)
_OUTLINE: Final = re.compile(r"^outline", re.I)
_XRAY_BASED: Final = re.compile(r"^(v2rayng|v2rayn|happ|xray|streisand|v2box|foxray)", re.I)
_VERSIONS: Final = (
    re.compile(r"sing-box[ /](\d{1,3})\.(\d{1,3})", re.I),
    re.compile(r"^sf[aimt]/(\d{1,3})\.(\d{1,3})", re.I),
)
"""The core says more than the app around it."""


def client_of(format: Format | None, accept: str, user_agent: str) -> Client:
    """Whom to answer. `format` is what the path names, which is final."""
    if format is None:
        format = _guessed(accept, user_agent)
    if format is Format.SING_BOX:
        return Client(format, _version(user_agent) < SING_BOX_NEWEST, xhttp=False)
    if format in (Format.MIHOMO, Format.OUTLINE):
        return Client(format, xhttp=False)
    if format is Format.V2RAY:
        return Client(format, xhttp=_XRAY_BASED.match(user_agent) is not None)
    return Client(format)


def _guessed(accept: str, user_agent: str) -> Format:
    if "text/html" in accept.lower():
        return Format.HTML
    if _HIDDIFY.match(user_agent):
        return Format.V2RAY
    if _MIHOMO.match(user_agent) or _CLASH.match(user_agent):
        return Format.MIHOMO
    if _SING_BOX.match(user_agent):
        return Format.SING_BOX
    if _OUTLINE.match(user_agent):
        return Format.OUTLINE
    return Format.V2RAY


def _version(user_agent: str) -> tuple[int, int]:
    """The sing-box inside; `SING_BOX_NEWEST` when it does not say."""
    for pattern in _VERSIONS:
        found = pattern.search(user_agent)
        if found is not None:
            return int(found[1]), int(found[2])
    return SING_BOX_NEWEST
