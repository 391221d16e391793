"""Command-line options made from the settings, which describe themselves in one place."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from darkroom.tasks.errors import InvalidSettingError
from darkroom.tasks.settings import Compute, Recipe, Rules, Settings
from darkroom.tasks.wording import as_options

S = TypeVar("S", bound=Settings)

OTHER_NAMES = ("sample", "repair", "last", "code")
"""Options that are not settings of a run."""


def with_settings(*models: type[Settings]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command an option for every setting of the models.

    The command takes the options' values as `**settings`, from which `parse` makes models.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        plain = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        options = [_parameter(name, field) for model in models for name, field in model.model_fields.items()]
        command.__signature__ = signature.replace(parameters=[*plain, *options])  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in [*plain, *options]}
        return command

    return decorate


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """Return the command's parameter for a setting; its value is a string that the model parses, unless a flag."""
    default = field.get_default(call_default_factory=True)
    is_flag, is_list = field.annotation is bool, get_origin(field.annotation) is list
    option = typer.Option(
        *([f"--{name.replace('_', '-')}"] if default is False else []),
        help=f"{field.description} As JSON." if _is_mapping(field) else field.description,
        metavar=None if is_flag else _metavar(field),
        show_default=f"{default:,}" if isinstance(default, int) and not is_flag else True,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default if is_flag else None if default in (None, [], {}) else str(default),
        annotation=Annotated[bool if is_flag else list[str] | None if is_list else str | None, option],
    )


def _metavar(field: FieldInfo) -> str:
    kinds = {field.annotation, get_origin(field.annotation), *get_args(field.annotation)}
    if Literal in kinds:
        return "|".join(get_args(field.annotation))
    return "NUMBER" if kinds & {int, float} else "JSON" if dict in kinds else "TEXT"


def _is_mapping(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is dict


def parse(model: type[S], values: dict[str, Any]) -> S:
    """Return a model from the options' values.

    Raises:
        InvalidSettingError: a value is wrong; names the setting and its possible values.
    """
    return model(
        **{
            name: _json(name, values[name]) if _is_mapping(field) else values[name]
            for name, field in model.model_fields.items()
            if values[name] is not None
        }
    )


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        raise InvalidSettingError(f"`{name}={text}`: give JSON; this is not ({problem}).") from problem


def name_options(message: str) -> str:
    """Return a message with its settings written as command-line options."""
    fields = (model.model_fields for model in (Recipe, Rules, Compute))
    return as_options(message, [*OTHER_NAMES, *(name for names in fields for name in names)])
