"""A valid value of any message type, made from its annotations: a corpus for a fuzzer."""

from __future__ import annotations

import importlib
import pkgutil
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

import holdfast.wire

_PLAIN: dict[Any, Any] = {
    int: 1,
    float: 1.5,
    bool: True,
    str: "word",
    bytes: b"0123456789abcdef" * 2,
    NoneType: None,
    object: 1,
    Any: 1,
}


def sample(kind: Any) -> Any:
    """A value of `kind`. Raises TypeError for an annotation it does not know."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple:
        parts = inner[:1] if inner[-1] is Ellipsis else inner
        return tuple(sample(part) for part in parts)
    if origin is list:
        return [sample(inner[0])]
    if origin in (dict,):
        return {sample(inner[0]): sample(inner[1])}
    if origin in (Union, UnionType):
        return sample(next(part for part in inner if part is not NoneType))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next(iter(kind))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = {field.name: field.type for field in msgspec.structs.fields(kind)}
        return kind(**{name: sample(hint) for name, hint in hints.items()})
    if origin is Annotated:
        return sample(inner[0])
    raise TypeError(f"no sample of {kind}")


def messages_of() -> list[type[msgspec.Struct]]:
    """Every message type that a module of `wire` defines, by name."""
    found: dict[str, type[msgspec.Struct]] = {}
    for info in pkgutil.iter_modules(holdfast.wire.__path__):
        module = importlib.import_module(f"holdfast.wire.{info.name}")
        for name, kind in vars(module).items():
            is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
            if is_struct and kind.__module__ == module.__name__ and name != "Message":
                assert name not in found, f"two messages are called {name}"
                found[name] = kind
    return [found[name] for name in sorted(found)]
