"""Lines as QR codes, for a terminal and for a page.

A line is upper-cased: the alphanumeric mode of a QR code then holds 4,296 letters where the byte
mode holds 2,953.
"""

from __future__ import annotations

import io

import segno

from holdfast.errors import UsageError


def _make(line: str) -> segno.QRCode:
    try:
        return segno.make(line.upper(), error="l", boost_error=False, micro=False)
    except segno.DataOverflowError as error:
        raise UsageError(
            f"{len(line)} letters do not fit a QR code: pass the line as text"
        ) from error


def qr_terminal(line: str) -> str:
    """Two modules per character cell, border of two. Raises UsageError when it does not fit."""
    out = io.StringIO()
    _make(line).terminal(out, border=2, compact=True)
    return out.getvalue()


def qr_svg(line: str) -> str:
    """An SVG element without width and height of its own: the page sizes it."""
    return _make(line).svg_inline(border=2, omitsize=True)


def qr_svg_exact(text: str) -> str:
    """The same, letter by letter: for URLs, whose case counts."""
    try:
        code = segno.make(text, error="m", micro=False)
    except segno.DataOverflowError as error:
        raise UsageError(f"{len(text)} letters do not fit a QR code") from error
    return code.svg_inline(border=2, omitsize=True)
