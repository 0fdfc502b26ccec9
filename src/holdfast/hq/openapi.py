"""The operator's port as an OpenAPI 3.1 document, from the same table that its gate obeys."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, get_type_hints

import msgspec
from starlette.responses import Response

from holdfast import __version__
from holdfast.hq.operators import Waiting
from holdfast.hq.verbs import BASE, Verb
from holdfast.wire.hq import Problem

_PARAMETER: Final = re.compile(r"{(\w+)}")
_TEXT: Final[dict[str, Any]] = {"text/plain": {"schema": {"type": "string"}}}
_REF: Final = "#/components/schemas/{name}"


def openapi(verbs: Iterable[Verb]) -> dict[str, Any]:
    """The document. Queries are left out: all of them have defaults."""
    rows = list(verbs)
    shapes = [shape for verb in rows for shape in (_reply(verb), verb.body) if shape is not None]
    unique = list({repr(shape): shape for shape in (*shapes, Problem, Waiting)}.values())
    schemas, components = msgspec.json.schema_components(unique, ref_template=_REF)
    by_shape = {repr(shape): schema for shape, schema in zip(unique, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for verb in rows:
        operation = _operation(verb, by_shape)
        paths.setdefault(BASE + verb.path, {})[verb.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Holdfast headquarters, operator's port", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _operation(verb: Verb, by_shape: dict[str, Any]) -> dict[str, Any]:
    handler = getattr(verb.handler, "__doc__", None)
    reply = _reply(verb)
    content = _json(by_shape[repr(reply)]) if reply is not None else _TEXT if _is_text(verb) else {}
    responses: dict[str, Any] = {"200": {"description": "done", "content": content}}
    if verb.second:
        waiting = _json(by_shape[repr(Waiting)])
        responses["202"] = {"description": "waits for a second person", "content": waiting}
    problem = _json(by_shape[repr(Problem)])
    responses["default"] = {"description": "it was not done", "content": problem}
    operation: dict[str, Any] = {
        "operationId": verb.name.lower().replace(" /", "-").replace("/", "-"),
        "summary": (handler or verb.name).strip().splitlines()[0],
        "description": "Roles: " + ", ".join(sorted(verb.roles)),
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _PARAMETER.findall(verb.path)
        ],
        "responses": responses,
    }
    if verb.body is not None:
        operation["requestBody"] = {"required": True, "content": _json(by_shape[repr(verb.body)])}
    return operation


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _reply(verb: Verb) -> Any:
    """What the handler says it answers with; None where it says only that it is a message."""
    found = get_type_hints(verb.handler).get("return")
    return found if isinstance(found, type) and _is_message(found) else None


def _is_message(found: type) -> bool:
    return issubclass(found, msgspec.Struct) and found is not msgspec.Struct


def _is_text(verb: Verb) -> bool:
    return get_type_hints(verb.handler).get("return") is Response
