"""Command-line options from the table of settings."""

import math
import sys
from collections.abc import Callable
from dataclasses import Field, replace
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from reactorcide.kinds import Kind, holds_too_much, home_dirs
from reactorcide.lib.sizes import format_size
from reactorcide.settings import Settings, all_settings, default_text, option_name

F = TypeVar("F", bound=Callable[..., Any])


class _Text(click.ParamType[Any]):
    """The click type of a setting: parse its text and check its bounds."""

    def __init__(self, setting: Field[Any]) -> None:
        kind: Kind = setting.metadata["kind"]
        self.name = kind.name
        self._setting = setting

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value."""
        try:
            parsed = self._setting.metadata["kind"].parse(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        least = self._setting.metadata["min"]
        if least is not None and parsed < least:
            self.fail(f"--{option_name(self._setting)} must be at least {format_size(least)}", param, ctx)
        return parsed


class Number(click.FloatRange):
    """A number within bounds: "nan", which no bound keeps out, is not one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


def settings_options(*names: str) -> Callable[[F], F]:
    """Add an option to a command for each of the named settings; without names for all."""
    chosen = [setting for setting in all_settings() if not names or setting.name in names]

    def decorate(command: F) -> F:
        for setting in reversed(chosen):
            command = _option(setting)(command)
        return command

    return decorate


def settings_from(options: dict[str, Any]) -> Settings:
    """Return the settings from a command's options; missing ones have their defaults."""
    return Settings(**{name: value for name, value in options.items() if value not in (None, ())})


def with_default_roots(settings: Settings) -> Settings:
    """Return the settings with the current directory as source root, if none is set.

    Only at a terminal and below the home directory, where developers work. A service started by a machine
    gets no source root.
    """
    if settings.source_roots or not (_is_terminal(sys.stdin) and _is_terminal(sys.stderr)):
        return settings
    try:
        here = Path.cwd()
    except FileNotFoundError:
        # The current directory was removed.
        return settings
    if holds_too_much(here) or not any(here.is_relative_to(home) for home in home_dirs()):
        return settings
    return replace(settings, source_roots=(here,))


def _is_terminal(file: TextIO | None) -> bool:
    return file is not None and file.isatty()


def _option(setting: Field[Any]) -> Callable[[F], F]:
    name, default = option_name(setting), default_text(setting)
    help_text = str(setting.metadata["help"])
    if default is not None:
        help_text += f"  [default: {default}]"
    return click.option(
        f"--{name}",
        setting.name,
        type=_type(setting),
        is_flag=setting.type is bool,
        multiple=str(setting.type).startswith("tuple"),
        envvar=f"REACTORCIDE_{name.upper().replace('-', '_')}",
        help=help_text,
    )


def _type(setting: Field[Any]) -> Any:
    about = setting.metadata
    if about["kind"] is not None:
        return _Text(setting)
    if about["choices"]:
        return click.Choice(about["choices"])
    if setting.type in (int, int | None):
        return click.IntRange(about["min"], about["max"])
    if setting.type in (float, float | None):
        return Number(about["min"], about["max"])
    if setting.type in (Path, Path | None):
        # The code that uses the path reports a wrong one with a sentence of its own.
        return click.Path(path_type=Path)
    return bool if setting.type is bool else str
