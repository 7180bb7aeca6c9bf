"""Credentials of a project's repository: a token over https, a deploy key over ssh."""

from collections.abc import Callable
from dataclasses import field
from urllib.parse import quote, urlsplit

from reactorcide.lib.records import record

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@record(kw_only=True)
class DeployKey:
    """A key for one server."""

    private: str = field(repr=False)
    """In OpenSSH's format."""
    known_hosts: str
    """The keys of servers, as lines of a ``known_hosts`` file; others are learned when first seen."""
    learned: Callable[[str], None]
    """Called with the lines of servers that were seen for the first time."""


@record(kw_only=True)
class GitAccess:
    """The credentials of a project for its repository."""

    git_url: str
    """The repository's URL, with or without a login; credentials are sent to its server only."""
    username: str
    """The user name to send with a token as the password."""
    token: str | None = field(default=None, repr=False)
    deploy_key: DeployKey | None = None

    def url(self, git_url: str) -> str:
        """Return a URL with the token, if it is for the project's server.

        A login in the URL takes precedence, and a token is never sent over a network in plain text.
        """
        try:
            parts, own = urlsplit(git_url), urlsplit(self.git_url)
            is_same = (parts.scheme, parts.hostname, parts.port) == (own.scheme, own.hostname, own.port)
        except ValueError:
            return git_url
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
        if self.token is None or parts.password or not is_same or not is_safe:
            return git_url
        host = parts.netloc.rpartition("@")[2]
        username = parts.username or quote(self.username, safe="")
        rest = git_url.partition("://")[2].partition(parts.netloc)[2]
        return f"{parts.scheme}://{username}:{quote(self.token, safe='')}@{host}{rest}"
