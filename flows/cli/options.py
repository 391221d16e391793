"""Command-line options made from the settings, so that each setting is described in one place only."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar, get_origin

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from darkroom.tasks.errors import SettingsError
from darkroom.tasks.settings import Settings

S = TypeVar("S", bound=Settings)


def with_settings(*models: type[Settings]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command an option for every setting of some models.

    The command takes them as `**settings`, of which `parse` makes models.
    """
    return lambda command: _with_options(command, models)


def _with_options(command: Callable[..., None], models: Sequence[type[Settings]]) -> Callable[..., None]:
    signature = inspect.signature(command, eval_str=True)
    plain = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default="{}" if _is_mapping(field) else field.default,
            annotation=Annotated[str if _is_mapping(field) else field.annotation, _option(model, name, field)],
        )
        for model in models
        for name, field in model.model_fields.items()
    ]
    command.__signature__ = signature.replace(parameters=[*plain, *options])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in [*plain, *options]}
    return command


def _option(model: type[Settings], name: str, field: FieldInfo) -> Any:
    flags = [_flag(name)] if field.default is False else []
    text = f"{field.description} As JSON." if _is_mapping(field) else field.description
    return typer.Option(*flags, help=text, rich_help_panel=model.__name__)


def _is_mapping(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is dict


def parse(model: type[S], values: dict[str, Any]) -> S:
    """Return the settings of one model from the options' values.

    Raises:
        SettingsError: a value is wrong; names the option and the values that it takes.
    """
    given = {
        name: _json(name, values[name]) if _is_mapping(field) else values[name]
        for name, field in model.model_fields.items()
    }
    try:
        return model(**given)
    except ValidationError as problem:
        details = (
            f"{_flag(error['loc'][0])}: {error['msg']} (it is {error['input']!r})" if error["loc"] else error["msg"]
            for error in problem.errors()
        )
        raise SettingsError(f"{'; '.join(details)}. See the command's --help.") from problem


def _flag(name: str | int) -> str:
    return f"--{str(name).replace('_', '-')}"


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        raise SettingsError(f"{_flag(name)}: {text!r} is not JSON ({problem}).") from problem
