"""Find the service and the token for the command line."""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from reactorcide.cli.client import Client
from reactorcide.cli.session import is_loopback
from reactorcide.domain.errors import ConfigurationError
from reactorcide.settings import Settings, default_data_dir


def connect(environment: Mapping[str, str] = os.environ) -> Client:
    """Return a client of the service at ``REACTORCIDE_API_URL``, or else of this user's own service.

    The own service is reached over the socket in the data directory. The token is ``REACTORCIDE_API_TOKEN``
    or, only over the socket, the one that ``serve`` stored in the directory: a port could belong to any
    program. Raises ``ConfigurationError`` for an invalid URL.
    """
    url = environment.get("REACTORCIDE_API_URL", "").strip().rstrip("/")
    token = environment.get("REACTORCIDE_API_TOKEN", "").strip()
    if url:
        _check_url(url)
    if token:
        if not token.isprintable() or " " in token:
            raise ConfigurationError(
                "REACTORCIDE_API_TOKEN is not a token: it has spaces or control characters"
            )
        return Client(url or _data_dir(environment), token, "the token is that of REACTORCIDE_API_TOKEN")
    advice = "set REACTORCIDE_API_TOKEN; 'reactorcide token create' makes a token on the service's host"
    if url:
        if is_loopback(url):
            advice += (
                ". The one in the data directory goes over the socket there alone: unset REACTORCIDE_API_URL"
            )
        return Client(url, None, f"the service at {url} requires a token: {advice}")
    data_dir = _data_dir(environment)
    path = Settings(data_dir=data_dir).admin_token_path
    try:
        return Client(data_dir, path.read_text("ascii").strip(), f"the token is that of {path}; {advice}")
    except FileNotFoundError:
        return Client(data_dir, None, f"there is no {path} with a token: {advice}")
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not text"
        return Client(data_dir, None, f"the token in {path} cannot be read: {reason}; {advice}")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ConfigurationError(
            f"REACTORCIDE_API_URL is {url!r}; it has to be like http://127.0.0.1:8080 or https://ci.example.com"
        )


def _data_dir(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("REACTORCIDE_DATA_DIR") or default_data_dir())
