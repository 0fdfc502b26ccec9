"""Services, called without the parser of people's command lines.

A supervisor, an agent or a container writes the line that starts a service, and what waits for it
waits for every import. Such a line is plain: the service's verb, then nothing but `--name=value`.
It is read here, in a few microseconds; the parser alone costs a third of a service's start. Any
other line, a wrong one too, is the parser's, which says what is the matter with it. Both call the
same function (`tests/cli/test_plain.py` holds them to the same meaning).

A service's function has keyword-only parameters of str, float, Path or an enum (or None), and its
module's `VARIABLES` names those that the environment may give: {parameter: variable}.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from types import NoneType
from typing import Annotated, Any, Final, TypeVar, get_args, get_type_hints

T = TypeVar("T", bound=Callable[..., Any])

SERVICES: Final = {
    ("hq", "serve"): "holdfast.cli.hq_serve:serve",
    ("node", "run"): "holdfast.cli.node_run:run",
    ("relay", "serve"): "holdfast.cli.relay_role:serve",
    ("relay", "wait"): "holdfast.cli.relay_role:wait",
}
"""(verb, verb) -> the function."""


def plain_call(words: Sequence[str]) -> Callable[[], Any] | None:
    """What to call for a plain line of a service; None for any other."""
    where = SERVICES.get((words[0], words[1])) if len(words) > 1 else None
    texts = _texts(words[2:]) if where is not None else None
    if where is None or texts is None:
        return None
    name, _, function_name = where.partition(":")
    module = _imported(name)
    function: Callable[..., Any] = getattr(module, function_name)
    values = _values(function, texts, module.VARIABLES)
    return None if values is None else partial(function, **values)


def _texts(words: Sequence[str]) -> dict[str, str] | None:
    """{name: value} of `--name=value` words; None when there is another, or one twice."""
    texts = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name.startswith("--") and equals):
            return None
        texts[name.removeprefix("--").replace("-", "_")] = value
    return texts if len(texts) == len(words) else None


def _imported(name: str) -> Any:
    """The module. Collecting garbage among what imports make finds none and takes a sixth of the
    time; what they made is never looked at again."""
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.freeze()
        gc.enable()


def _values(
    function: Callable[..., Any], texts: Mapping[str, str], variables: Mapping[str, str]
) -> dict[str, Any] | None:
    """The arguments; None when one is unknown, missing or no value of its type."""
    kinds = get_type_hints(function)
    kinds.pop("return", None)
    told = {
        name: os.environ[variable]
        for name, variable in variables.items()
        if name in kinds and variable in os.environ
    }
    texts = {**told, **texts}
    required = kinds.keys() - (function.__kwdefaults__ or {}).keys()
    if not required <= texts.keys() <= kinds.keys() or not all(texts.values()):
        return None
    try:
        return {name: _value(kinds[name], text) for name, text in texts.items()}
    except (ValueError, TypeError):
        return None


def _value(kind: Any, text: str) -> Any:
    """Raises ValueError or TypeError for what is no value of that type."""
    kinds = [each for each in get_args(kind) or (kind,) if each is not NoneType]
    if len(kinds) != 1 or kinds[0] is bool:
        raise TypeError(f"{kind} is the parser's")
    return kinds[0](text)


def described(function: T, variables: Mapping[str, str], **helps: str) -> T:
    """A service's function with what the parser should know of its parameters."""
    from cyclopts import Parameter

    kinds = get_type_hints(function)
    names = kinds.keys() & (variables.keys() | helps.keys())
    for name in names:
        kinds[name] = Annotated[kinds[name], Parameter(env_var=variables.get(name))]
        if name in helps:  # otherwise the docstring's
            kinds[name] = Annotated[kinds[name], Parameter(help=helps[name])]
    function.__annotations__ = kinds
    return function
