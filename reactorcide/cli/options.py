"""Command-line options made from the table of settings."""

from collections.abc import Callable
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Any, TypeVar

import click

from reactorcide.settings import Settings, all_settings, option_name

F = TypeVar("F", bound=Callable[..., Any])

_TYPES: dict[Any, Any] = {
    str: str,
    str | None: str,
    int: int,
    float: float,
    float | None: float,
    # A file in its place is found by what uses it, and then said in a sentence.
    Path: click.Path(path_type=Path),
    tuple[Path, ...]: click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    tuple[str, ...]: str,
}
_LEAST = {"port": 0, "concurrency": 0, "pids_limit": 16, "stream_slots": 0}
_LEAST_S = {"lease_s": 1.0, "prepare_timeout_s": 1.0, "cancel_grace_s": 0.1}


def settings_options(*names: str) -> Callable[[F], F]:
    """Give a command an option for each of the named settings (all, if none is named)."""
    wanted = [setting for setting in all_settings() if not names or setting.name in names]

    def decorate(command: F) -> F:
        for setting in reversed(wanted):
            command = _option(setting)(command)
        return command

    return decorate


def settings_from(options: dict[str, Any]) -> Settings:
    """Return the settings that a command was given; what was left out has its default."""
    return Settings(**{name: value for name, value in options.items() if value not in (None, ())})


def _option(setting: Field[Any]) -> Callable[[F], F]:
    name = option_name(setting)
    kind = _TYPES[setting.type]
    help_text = str(setting.metadata["help"])
    if setting.metadata["choices"]:
        kind = click.Choice(setting.metadata["choices"])
    elif setting.name in _LEAST:
        kind = click.IntRange(_LEAST[setting.name])
    elif setting.type in (float, float | None):
        kind = click.FloatRange(_LEAST_S.get(setting.name, 0.01))
    if setting.default is not MISSING and setting.default is not None and setting.default != ():
        help_text += f"  [default: {setting.default}]"
    return click.option(
        f"--{name}",
        setting.name,
        type=kind,
        multiple=str(setting.type).startswith("tuple"),
        envvar=f"REACTORCIDE_{name.upper().replace('-', '_')}",
        help=help_text,
    )
