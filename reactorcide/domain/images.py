"""Image references as container engines write them."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

_COMPONENT = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
PATTERN = (
    r"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?"
    rf"{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
    r"(?:@[a-z0-9]+:[0-9a-f]{32,128})?"
)
"""A regular expression for an image reference."""
_REFERENCE = re.compile(PATTERN)
_HUB = "docker.io"


def is_image_reference(text: str) -> bool:
    """Return whether ``text`` is ``[host[:port]/]name[:tag][@digest]``."""
    return len(text) <= 255 and _REFERENCE.fullmatch(text) is not None


def with_tag(image: str) -> str:
    """Return a reference with the default tag ``latest`` if it has neither a tag nor a digest."""
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"


def full_reference(text: str) -> str:
    """Return the full image reference: ``alpine`` is ``docker.io/library/alpine:latest``.

    The rules are Docker's. A digest overrides a tag, which is then dropped.
    """
    return _completed(text, "latest")


def is_allowed(reference: str, patterns: Sequence[str]) -> bool:
    """Return whether an image matches one of the globs; without globs every image does."""
    full = full_reference(reference)
    return not patterns or any(fnmatchcase(full, full_pattern(pattern)) for pattern in patterns)


def full_pattern(pattern: str) -> str:
    """Return a glob for full references, from one that may leave out the same parts as a reference.

    Raises ``ValueError`` if the registry is not written out: a ``*`` would match a ``/`` in it as well.
    """
    full = _completed(pattern, "" if pattern.endswith("*") else "latest")
    if re.search(r"[*?[]", full.partition("/")[0]):
        raise ValueError(f"{pattern!r} has no fixed registry; write it out, like ghcr.io/acme/*")
    return full


def _completed(text: str, tag: str) -> str:
    name, _, digest = text.partition("@")
    host, slash, path = name.partition("/")
    if not slash or not (re.search(r"[.:]", host) or host == "localhost"):
        host, path = _HUB, name
    if host == f"index.{_HUB}":
        host = _HUB
    path, _, named_tag = path.partition(":")
    if host == _HUB and "/" not in path:
        path = f"library/{path}"
    tag = named_tag or tag
    ending = f"@{digest}" if digest else f":{tag}" if tag else ""
    return f"{host}/{path}{ending}"
