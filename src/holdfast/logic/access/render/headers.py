"""The head of a subscription's answer, in the exact forms that clients parse.

Lower-case ASCII names and values, each once: Hiddify reads a repeated header as none. It wants all
four parts of `subscription-userinfo` and no semicolon at the end, whole hours in
`profile-update-interval`, quotes around the file name. v2rayNG reads none of this.
"""

from __future__ import annotations

import binascii
from typing import Final

from holdfast.crypto.pure import hash_bytes
from holdfast.logic.access.render.negotiate import Client, Format
from holdfast.logic.access.subscription import Usage

TITLE_LETTERS_MAX: Final = 25
"""Happ shows no more."""
SUFFIX: Final = {Format.MIHOMO: "yaml", Format.SING_BOX: "json", Format.XRAY_JSON: "json"}


def etag(body: bytes) -> str:
    """A strong validator: equal for equal bodies."""
    return f'"{hash_bytes(body).hex()[:32]}"'


def matches(if_none_match: str, tag: str) -> bool:
    """Whether a client holds what has this tag (RFC 9110 §13.1.2: weak comparison)."""
    held = [item.strip().removeprefix("W/") for item in if_none_match.split(",")]
    return tag in held or held == ["*"]


def userinfo(usage: Usage, quota_bytes: int, expires_at: int) -> str:
    """What clients show as used, allowed and valid until; 0 is no limit."""
    return (
        f"upload={usage.upload}; download={usage.download}; total={quota_bytes};"
        f" expire={expires_at}"
    )


def face_headers(
    title: str, update_h: int, page_url: str, support_url: str, client: Client
) -> list[tuple[str, str]]:
    """What is the same for all devices."""
    shown = binascii.b2a_base64(title[:TITLE_LETTERS_MAX].encode(), newline=False).decode()
    found = [
        ("profile-title", f"base64:{shown}"),
        ("profile-update-interval", str(max(1, int(update_h)))),
        ("cache-control", "private, no-cache"),
        ("vary", "User-Agent, Accept"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
    ]
    if client.format is not Format.HTML:
        name = f"{_ascii(title)}.{SUFFIX.get(client.format, 'txt')}"
        found.append(("content-disposition", f'attachment; filename="{name}"'))
    if page_url:
        found.append(("profile-web-page-url", page_url))
    if support_url:
        found.append(("support-url", support_url))
    return found


def _ascii(title: str) -> str:
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-._") else "-" for c in title)
    return kept.strip("-.")[:TITLE_LETTERS_MAX] or "subscription"
