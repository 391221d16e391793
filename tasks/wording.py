"""Counted nouns, and messages about wrong settings that say more than pydantic's."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

_NAMED = re.compile(r"`([a-z_]+)(?:=([^`]*))?`")

_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list of texts",
    dict: 'arguments by name, on the command line as JSON: {"n_workers": 2}',
}


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with thousands separators and its noun, as "1 image" or "1,000 images"."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def describe_invalid(model: type[BaseModel], invalid: ValidationError) -> str:
    """Return what is wrong with settings and what to give instead, a sentence for each setting."""
    return " ".join(_describe(model, error) for error in invalid.errors())


def _describe(model: type[BaseModel], error: ErrorDetails) -> str:
    if not error["loc"]:
        return _sentence(_own_message(error) or "give settings by name")
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"There is no setting {name!r}{did_you_mean(name, model.model_fields)}"
    if own := _own_message(error):
        return f"`{name}`: {_sentence(own)}"
    value = error["input"]
    kind = describe_values(model.model_fields[name])
    close = did_you_mean(value, _choices(model.model_fields[name])) if isinstance(value, str) else "."
    return f"`{name}={value}`: give {kind}{close}"


def _own_message(error: ErrorDetails) -> str:
    """Return the message of an error raised by one of our validators; empty for pydantic's own."""
    return str(error.get("ctx", {}).get("error", ""))


def _sentence(text: str) -> str:
    return f"{text.removesuffix('.')}."


def did_you_mean(name: str, possible: Iterable[str]) -> str:
    """Return the end of a sentence about a misspelt name: the possible name that is closest, if one is close."""
    close = difflib.get_close_matches(name, possible, n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def describe_values(field: FieldInfo) -> str:
    """Return the values that a setting takes, such as "a whole number from 1 to 100" or "jpeg, png or webp"."""
    if choices := _choices(field):
        return f"{', '.join(choices[:-1])} or {choices[-1]}"
    if field.examples:
        return f"a value such as {field.examples[0]}"
    kinds = (get_origin(field.annotation), field.annotation, *get_args(field.annotation))
    kind = next(kind for kind in kinds if kind in _KINDS)
    return f"{_KINDS[kind]}{_describe_limits(field)}"


def _choices(field: FieldInfo) -> list[str]:
    return list(get_args(field.annotation)) if get_origin(field.annotation) is Literal else []


def _describe_limits(field: FieldInfo) -> str:
    limits = {
        name: value
        for each in field.metadata
        for name in ("ge", "gt", "le")
        if (value := getattr(each, name, None)) is not None
    }
    if "ge" in limits and "le" in limits:
        return f" from {limits['ge']:,} to {limits['le']:,}"
    return f" of {limits['ge']:,} or more" if "ge" in limits else f" above {limits['gt']:,}" if "gt" in limits else ""


def as_options(message: str, names: Iterable[str]) -> str:
    """Return a message with its settings as on the command line: `` `force=True` `` as `--force`.

    Args:
        message: the message, with settings as in Python, in backticks.
        names: the names of the settings; other text in backticks is unchanged.
    """
    known = set(names)
    return _NAMED.sub(lambda found: _as_option(found[1], found[2]) if found[1] in known else found[0], message)


def _as_option(name: str, value: str | None) -> str:
    flag = name.replace("_", "-")
    if value in (None, "True"):
        return f"--{flag}"
    return f"--no-{flag}" if value == "False" else f"--{flag} {value}"
