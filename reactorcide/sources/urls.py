"""Checks of the text of git URLs, of jobs and of ``.gitmodules``, and of git refs.

The rules are git's own ("GIT URLS" in git-fetch(1), git-check-ref-format(1)), reduced to the transports that
only move data: a transport helper (``ext::``) would run a command from the URL.
"""

import re
from dataclasses import field
from urllib.parse import unquote

from reactorcide.domain.errors import InvalidInput
from reactorcide.lib.records import record

MAX_URL_CHARS = 4096
MAX_REF_CHARS = 255

# No percent sign in a host or an ssh user: git would decode it after these checks.
_HOST = r"(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.][\w.-]*)"
_SSH_USER = r"(?:(?P<user>[\w.+][\w.+-]*)"
_WEB = re.compile(
    rf"(?P<scheme>https?|git)://(?:(?P<userinfo>[^/?#]*)@)?{_HOST}(?P<port>:[0-9]*)?(?P<path>/.*)?"
)
_SSH = re.compile(rf"ssh://{_SSH_USER}(?::[^/?#]*)?@)?{_HOST}(?P<port>:[0-9]*)?(?P<path>/.*)")
# An "@" in the first part of the path would be "user:password@host:path", which ssh does not support: git
# would use "user" as the host and the password as a part of the path.
_SCP = re.compile(rf"{_SSH_USER}@)?{_HOST}:(?!:)(?![^/]*@)(?P<path>.+)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_BAD_IN_REF = re.compile(r"[~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|^[-/.]|[/.]$|^@$")
_SHA = re.compile(r"[0-9a-fA-F]{7,64}")


@record
class GitUrl:
    """A parsed git URL; ``str()`` is the URL without its credentials, which is safe to show.

    ``root`` is the part before the ``path``. ``protocols`` are git's names of the transports that it needs.
    ``server`` is scheme, host and port: where ``username`` and ``password`` (decoded)
    may be sent, for http(s) only. ``host`` (an IPv6 address without its brackets) and ``port`` are
    where it is; ``local_path`` is the absolute path of a repository on this host, which has neither.
    """

    root: str
    path: str
    protocols: tuple[str, ...]
    server: str = ""
    username: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)
    local_path: str | None = None
    host: str = ""
    port: int | None = None

    def __str__(self) -> str:
        return self.clean

    @property
    def clean(self) -> str:
        """The URL without its credentials."""
        return self.root + self.path

    def of_submodule(self, url: str) -> str:
        """Return the URL for ``url`` of this repository's ``.gitmodules``, which may be ``./…`` or ``../…``.

        The rules are those of gitmodules(5), but a URL that leads above the server or the root directory
        raises ``InvalidInput``. The result is not parsed yet.
        """
        if not url.startswith(("./", "../")):
            return url
        path, joint = self.path.removesuffix("/"), "/"
        while url.startswith(("./", "../")):
            step, _, url = url.partition("/")
            if step == "..":
                if not path:
                    raise _bad_url("must not lead above the root of its server")
                # Of host:path, only the host may be left.
                path, joint, _ = path.rpartition("/")
        return f"{self.root}{path}{joint}{url.removesuffix('/')}"

    @classmethod
    def parse(cls, url: str) -> "GitUrl":
        """Parse ``url``; raises ``InvalidInput`` for ``git_url``, without the URL in its message.

        ``SourceRoots.check_git_url`` checks whether a local path may be used.
        """
        if not 0 < len(url) <= MAX_URL_CHARS:
            raise _bad_url(f"must have 1 to {MAX_URL_CHARS} characters")
        # isprintable() is false for control characters, line separators and lone surrogates.
        is_local = url.startswith(("/", "file:///"))
        if not url.isprintable() or (" " in url and not is_local) or _CONTROL.search(unquote(url)):
            raise _bad_url("must not contain white space or control characters, encoded or not")
        if url.startswith("/"):
            return cls("", url, ("file",), local_path=url)
        if is_local:
            path = url.removeprefix("file://")
            return cls("file://", path, ("file",), local_path=unquote(path, errors="surrogateescape"))
        if match := _WEB.fullmatch(url):
            return cls._from_web(match)
        if match := _SSH.fullmatch(url):
            user = f"{match['user']}@" if match["user"] else ""
            # ssh ignores a password in a URL, and it would be visible in the list of processes.
            root = f"ssh://{user}{match['host']}{match['port'] or ''}"
            return cls(root, match["path"], ("ssh",), host=_host(match), port=_port(match))
        if "://" not in url and (match := _SCP.fullmatch(url)):
            return cls(url[: match.start("path")], match["path"], ("ssh",), host=_host(match))
        raise _bad_url("must be an http(s), ssh or git URL, user@host:path, or a path below a source root")

    @classmethod
    def _from_web(cls, match: re.Match[str]) -> "GitUrl":
        server = f"{match['scheme']}://{match['host']}{match['port'] or ''}"
        path = match["path"] or ""
        host, port = _host(match), _port(match)
        if match["scheme"] == "git":
            return cls(server, path, ("git",), host=host, port=port)
        # A server may redirect from http to https; git itself refuses any other change.
        protocols = ("http", "https")
        if match["userinfo"] in (None, "", ":"):
            return cls(server, path, protocols, host=host, port=port)
        username, _, password = map(unquote, match["userinfo"].partition(":"))
        return cls(server, path, protocols, server, username, password, host=host, port=port)


def _host(match: re.Match[str]) -> str:
    return match["host"].strip("[]")


def _port(match: re.Match[str]) -> int | None:
    digits = (match["port"] or "").removeprefix(":")
    if not digits:
        return None
    if len(digits) > 5 or not 0 < int(digits) < 65536:
        raise _bad_url("must not have a port outside of 1 to 65535")
    return int(digits)


def check_git_ref(ref: str) -> None:
    """Raise ``InvalidInput`` for ``git_ref`` unless ``ref`` can name a branch, tag, full ref or commit."""
    if not 0 < len(ref) <= MAX_REF_CHARS:
        raise InvalidInput(f"git_ref must have 1 to {MAX_REF_CHARS} characters", field="git_ref")
    if not ref.isprintable() or " " in ref or _BAD_IN_REF.search(ref):
        raise InvalidInput(
            "git_ref is not a name that git accepts for a branch, tag or commit", field="git_ref"
        )


def is_sha(ref: str) -> bool:
    """Return whether ``ref`` may be a commit's SHA-1 or SHA-256, or its first seven or more digits."""
    return _SHA.fullmatch(ref) is not None


def _bad_url(rule: str) -> InvalidInput:
    return InvalidInput(f"git_url {rule}", field="git_url")
