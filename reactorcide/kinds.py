"""Kinds of settings: parsing and checking their text."""

import ipaddress
import os
import pwd
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from reactorcide.domain.images import full_pattern, is_image_reference
from reactorcide.lib.records import record
from reactorcide.lib.sizes import parse_size

_MAX_LINE_CHARS = 4096
_MAX_PREFIX_CHARS = 200
"""Maximum length of an object store's prefix: S3's keys, which begin with it, have at most 1024 bytes."""


@record
class Kind:
    """The parser of a setting's text."""

    name: str
    """The placeholder in the command line's help."""
    parse: Callable[[str], Any]
    """Returns the value; raises ``ValueError`` with a sentence."""


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is not HOST:PORT, like 10.0.0.5:5080")
    return text


def _corndogs(text: str) -> str:
    scheme, _, address = text.rpartition("://")
    if scheme not in ("", "csil", "grpc"):
        raise ValueError(
            f"{text!r} is not an address of Corndogs, like csil://10.0.0.5:5080 for releases since 0.7.1 or "
            "grpc://10.0.0.5:5080 for those up to 0.3"
        )
    _address(address)
    return text


def _buildkit(text: str) -> str:
    scheme, _, address = text.partition("://")
    if scheme != "tcp":
        raise ValueError(f"{text!r} is not an address of a BuildKit, like tcp://buildkit:1234")
    return f"tcp://{_address(address)}"


def _database(text: str) -> str:
    """Return the URL of a database. No error repeats the text, which may have a password."""
    if text.startswith("@"):
        text = _first_line(Path(text[1:]))
    if not text.startswith(("postgresql://", "postgres://")):
        raise ValueError(
            "that is no address of a database, like postgresql://USER@HOST/DATABASE, nor @FILE with one"
        )
    return text


def _first_line(path: Path) -> str:
    """Return the first line of a small file."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline(_MAX_LINE_CHARS).strip()
    except (OSError, ValueError) as exc:
        raise ValueError(f"the file {path} cannot be read: {exc}") from exc


def _image(text: str) -> str:
    if not is_image_reference(text):
        raise ValueError(f"{text!r} is not an image reference, like alpine:latest")
    return text


def _image_pattern(text: str) -> str:
    full_pattern(text)
    return text


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as exc:
        raise ValueError(f"{exc}; write it like 10.0.0.5 or 10.0.0.0/24") from exc
    return text


def _objects(text: str) -> str:
    bucket, _, prefix = text.removeprefix("s3://").strip("/").partition("/")
    parts = prefix.split("/") if prefix else []
    is_valid = re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket) is not None and all(
        re.fullmatch(r"[A-Za-z0-9_.-]+", part) and part.strip(".") for part in parts
    )
    if not text.startswith("s3://") or not is_valid or len(prefix) > _MAX_PREFIX_CHARS:
        raise ValueError(
            f"{text!r} is not an object store, like s3://bucket/prefix, with a prefix of at most "
            f"{_MAX_PREFIX_CHARS} letters, digits, and _ . - /"
        )
    return "/".join(["s3:/", bucket, *parts])


def _origin(text: str) -> str:
    if re.fullmatch(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?", text) is None:
        raise ValueError(f"{text!r} is not an origin, like https://ci.example.com")
    return text


def _capability(text: str) -> str:
    """Return the capability's name as in the kernel's list, without ``CAP_``."""
    name = text.upper().removeprefix("CAP_")
    if re.fullmatch(r"[A-Z]+(_[A-Z]+)*", name) is None:
        raise ValueError(f"{text!r} is not a capability, like NET_RAW")
    return name


def _source_root(text: str) -> Path:
    root = Path(os.path.realpath(text))
    try:
        is_directory = stat.S_ISDIR(root.stat().st_mode)
    except FileNotFoundError:
        is_directory = False
    except OSError as exc:
        raise ValueError(f"the directory {text} cannot be looked at: {exc.strerror}") from exc
    if not is_directory:
        raise ValueError(f"there is no directory {text}")
    if holds_too_much(root):
        raise ValueError(
            f"{root} cannot be a source root: every user's job could copy any file below it, keys and logins "
            "too; name the directories in it that jobs may take sources from"
        )
    return root


def holds_too_much(root: Path) -> bool:
    """Return whether a directory is ``/``, a home of the user or above one: there are keys and logins."""
    return root == Path("/") or any(home.is_relative_to(root) for home in home_dirs())


def home_dirs() -> set[Path]:
    """Return the user's home directories: by the password database, and ``$HOME``; never ``/``."""
    homes = {os.environ.get("HOME", "")}
    with suppress(KeyError):
        homes.add(pwd.getpwuid(os.geteuid()).pw_dir)
    # An empty or relative home would depend on the current directory.
    return {Path(os.path.realpath(home)) for home in homes if os.path.isabs(home)} - {Path("/")}


SIZE = Kind("SIZE", parse_size)
DATABASE = Kind("postgresql://USER@HOST/DATABASE", _database)
CORNDOGS = Kind("ADDRESS", _corndogs)
BUILDKIT = Kind("tcp://HOST:PORT", _buildkit)
# Without a host it is on loopback.
LISTEN = Kind("[HOST:]PORT", lambda text: _address(f"127.0.0.1:{text}" if text.isdigit() else text))
IMAGE = Kind("IMAGE", _image)
IMAGE_PATTERN = Kind("GLOB", _image_pattern)
NETWORK = Kind("CIDR", _network)
OBJECTS = Kind("s3://BUCKET/PREFIX", _objects)
ORIGIN = Kind("ORIGIN", _origin)
CAPABILITY = Kind("NAME", _capability)
SOURCE_ROOT = Kind("DIRECTORY", _source_root)
