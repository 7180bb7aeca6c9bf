"""Command-line options made from the table of settings."""

import ipaddress
import os
import re
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, replace
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from reactorcide.domain.images import full_pattern, is_image_reference
from reactorcide.domain.sizes import parse_size
from reactorcide.settings import Settings, all_settings, option_name

F = TypeVar("F", bound=Callable[..., Any])


class _SourceRoot(click.Path):
    """A directory that jobs may take files from."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, exists=True, file_okay=False, resolve_path=True)

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """Return the directory; one that holds everything of the host or of its user is refused."""
        root = Path(os.fsdecode(super().convert(value, param, ctx)))
        if holds_too_much(root):
            self.fail(
                f"{root} is no source root: every user's job could copy any file below it, keys and logins "
                "too; name the directories in it that jobs may take sources from",
                param,
                ctx,
            )
        return root


_TYPES: dict[Any, Any] = {
    str: str,
    str | None: str,
    int: int,
    float: float,
    float | None: float,
    # A file in its place is found by what uses it, and then said in a sentence.
    Path: click.Path(path_type=Path),
    Path | None: click.Path(path_type=Path),
    tuple[Path, ...]: _SourceRoot(),
    tuple[str, ...]: str,
    bool: bool,
}
_LEAST = {
    "concurrency": 0,
    "pids_limit": 16,
    "keep_jobs": 0,
    "keep_days": 0,
    "keep_image_days": 0,
    "keep_source_days": 0,
    "stream_slots": 0,
    "max_artifacts": 0,
    "bad_tokens": 0,
}
_LEAST_S = {
    "lease_s": 1.0,
    "prepare_timeout_s": 1.0,
    "cancel_grace_s": 0.1,
    "request_timeout_s": 1.0,
}


class _Size(click.ParamType[str]):
    """A size, checked before anything is started."""

    name = "SIZE"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text as it is."""
        try:
            parse_size(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        return value


class _Address(click.ParamType[str]):
    """A host and a port."""

    name = "HOST:PORT"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text as it is."""
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            self.fail(f"{value!r} is no HOST:PORT, like 10.0.0.5:5080", param, ctx)
        return value


class _Listen(_Address):
    """An address to listen on."""

    name = "[HOST:]PORT"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it with its host, which is loopback where none is named."""
        return super().convert(f"127.0.0.1:{value}" if value.isdigit() else value, param, ctx)


class _Image(click.ParamType[str]):
    """An image reference."""

    name = "IMAGE"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text as it is."""
        if not is_image_reference(value):
            self.fail(f"{value!r} is no image reference, like alpine:latest", param, ctx)
        return value


class _ImagePattern(click.ParamType[str]):
    """A glob of image references."""

    name = "GLOB"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text as it is."""
        try:
            full_pattern(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        return value


class _Network(click.ParamType[str]):
    """An address, or a network in CIDR notation."""

    name = "CIDR"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text as it is."""
        try:
            ipaddress.ip_network(value)
        except ValueError as exc:
            self.fail(f"{exc}; write it like 10.0.0.5 or 10.0.0.0/24", param, ctx)
        return value


class _Origin(click.ParamType[str]):
    """The origin of a web page, as browsers send it."""

    name = "ORIGIN"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text as it is."""
        if re.fullmatch(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?", value) is None:
            self.fail(f"{value!r} is no origin, like https://ci.example.com", param, ctx)
        return value


class _Capability(click.ParamType[str]):
    """A Linux capability."""

    name = "NAME"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return its name as the kernel's list has it, without ``CAP_``."""
        name = value.upper().removeprefix("CAP_")
        if re.fullmatch(r"[A-Z]+(_[A-Z]+)*", name) is None:
            self.fail(f"{value!r} is no capability, like NET_RAW", param, ctx)
        return name


_TYPES_OF: dict[str, click.ParamType[Any]] = {
    "port": click.IntRange(0, 65535),
    "corndogs_address": _Address(),
    "corndogs_listen": _Listen(),
    "default_image": _Image(),
    "allow_images": _ImagePattern(),
    "default_memory_limit": _Size(),
    "max_memory_limit": _Size(),
    "max_disk": _Size(),
    "min_free_disk": _Size(),
    "keep_bytes": _Size(),
    "max_artifact_bytes": _Size(),
    "max_source_bytes": _Size(),
    "git_memory": _Size(),
    "allow_addresses": _Network(),
    "deny_addresses": _Network(),
    "trusted_proxies": _Network(),
    "cors_origins": _Origin(),
    "capabilities": _Capability(),
}


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


def holds_too_much(root: Path) -> bool:
    """Tell whether a directory is ``/``, or has the user's home in it or is that: with keys and logins."""
    home = _home()
    return root == Path("/") or (home is not None and home.is_relative_to(root))


def with_default_roots(settings: Settings) -> Settings:
    """Return the settings with the directory that this was started in as source root, where none is named.

    That is for whoever works with their own sources: at a terminal, below their home. A service that a
    machine starts, in whatever directory, has none.
    """
    if settings.source_roots or not (_is_terminal(sys.stdin) and _is_terminal(sys.stderr)):
        return settings
    home = _home()
    try:
        here = Path.cwd()
    except FileNotFoundError:
        # It was removed meanwhile.
        return settings
    if home is None or not here.is_relative_to(home) or holds_too_much(here):
        return settings
    return replace(settings, source_roots=(here,))


def _home() -> Path | None:
    try:
        return Path(os.path.realpath(Path.home()))
    except RuntimeError:
        # A user without one.
        return None


def _is_terminal(file: TextIO | None) -> bool:
    return file is not None and file.isatty()


def _option(setting: Field[Any]) -> Callable[[F], F]:
    name = option_name(setting)
    kind = _TYPES[setting.type]
    help_text = str(setting.metadata["help"])
    if setting.name in _TYPES_OF:
        kind = _TYPES_OF[setting.name]
    elif setting.metadata["choices"]:
        kind = click.Choice(setting.metadata["choices"])
    elif setting.name in _LEAST:
        kind = click.IntRange(_LEAST[setting.name])
    elif setting.type in (float, float | None):
        kind = click.FloatRange(_LEAST_S.get(setting.name, 0.01))
    if setting.default is not MISSING and setting.default not in (None, (), False):
        help_text += f"  [default: {setting.default}]"
    return click.option(
        f"--{name}",
        setting.name,
        type=kind,
        is_flag=setting.type is bool,
        multiple=str(setting.type).startswith("tuple"),
        envvar=f"REACTORCIDE_{name.upper().replace('-', '_')}",
        help=help_text,
    )
