"""The cover site: what anybody who holds no secret sees of an entry or a core.

A plain web server with nothing on it: the same for every node of every cell, so that seeing it
tells nothing, and no error of ours in it.
"""

from __future__ import annotations

from typing import Any, Final

WELCOME: Final = """<!DOCTYPE html>
<html>
<head>
<title>Welcome to nginx!</title>
<style>
html { color-scheme: light dark; }
body { width: 35em; margin: 0 auto;
font-family: Tahoma, Verdana, Arial, sans-serif; }
</style>
</head>
<body>
<h1>Welcome to nginx!</h1>
<p>If you see this page, the nginx web server is successfully installed and
working. Further configuration is required.</p>

<p>For online documentation and support please refer to
<a href="http://nginx.org/">nginx.org</a>.<br/>
Commercial support is available at
<a href="http://nginx.com/">nginx.com</a>.</p>

<p><em>Thank you for using nginx.</em></p>
</body>
</html>
"""
NOT_FOUND: Final = (
    "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n"
    "<center><h1>404 Not Found</h1></center>\r\n<hr><center>nginx</center>\r\n"
    "</body>\r\n</html>\r\n"
)


def cover_routes() -> list[dict[str, Any]]:
    """The last routes of every port."""
    return [
        _page({"path": "/"}, 200, WELCOME),
        _page({"path": "/index.html"}, 200, WELCOME),
        _page({"prefix": "/"}, 404, NOT_FOUND),
    ]


def _page(match: dict[str, Any], status: int, body: str) -> dict[str, Any]:
    return {
        "match": match,
        "direct_response": {"status": status, "body": {"inline_string": body}},
        "response_headers_to_add": [
            {
                "header": {"key": "content-type", "value": "text/html"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
    }
