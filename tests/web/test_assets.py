"""Vendored files are what their publisher shipped, and are named with their licence."""

from __future__ import annotations

import hashlib
import re

from holdfast.web import static

OURS = {"holdfast.js", "holdfast.css", "icon.svg", "LICENSES.md"}


def test_vendored_files_are_unchanged_and_licensed() -> None:
    text = static.assets()["LICENSES.md"].body.decode()
    listed = dict(re.findall(r"- `([^`]+)` `([0-9a-f]{64})`", text))
    assert set(listed) == set(static.assets()) - OURS
    for name, digest in listed.items():
        assert hashlib.sha256(static.assets()[name].body).hexdigest() == digest, name
    assert "Zero-Clause BSD" in text
    assert "Copyright (c) 2022 Leon Sorokin" in text


def test_our_own_files_reach_nothing_outside() -> None:
    for name in ("holdfast.js", "holdfast.css", "icon.svg"):
        text = static.assets()[name].body.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]|@import|url\(|eval\(|innerHTML", text), name
