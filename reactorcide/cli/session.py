"""A connection to a service over HTTP, and the error sentences if that fails."""

import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urljoin, urlsplit

from reactorcide.cli.datadir import lock_owner
from reactorcide.domain.errors import ReactorcideError
from reactorcide.lib import networks
from reactorcide.lib.sizes import format_size
from reactorcide.settings import Settings

if TYPE_CHECKING:
    import requests

_PREFIX = "/api/v1"
_LOCAL_BASE_URL = "http://localhost"
"""The base URL of requests over the socket in the data directory."""
CONNECT_S = 5.0
ANSWER_S = 60.0
BLOCK_BYTES = 1 << 16
_MAX_JSON_BYTES = 16 << 20
"""The service's lists have at most 8 MiB. Parsed, a body takes up to 27 times its size: 454 MiB of memory."""
_MAX_ERROR_BYTES = 64 << 10
_MAX_UNDECODED_BYTES = 1 << 20
"""How much may arrive of a stream, or in addition to a body, without a byte of content."""
_BODY_S = 300.0
"""The time for a whole body, except a download or a followed log: for 8 MiB that is some 28 KiB/s."""
_LET_THROUGH = "it has to let requests to /api/v1 pass, which bring a token of their own"

Json = dict[str, Any]


class ServiceError(ReactorcideError):
    """The service refused the request, or is not Reactorcide; ``fields`` are the wrong fields, if any."""

    def __init__(self, message: str, *, status: int | None = None, fields: Collection[str] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.fields = fields


class ServiceAway(ServiceError):
    """The service does not answer at the moment; a later try may succeed."""


class Session:
    """A connection to the service at a URL, or to that of a data directory of this user.

    ``token_advice`` is shown if the token is missing or refused. Every method raises ``ServiceError`` with
    a sentence for the user, or ``Stranger`` if the data directory is another user's. Not thread-safe.
    """

    def __init__(self, service: str | Path, token: str | None, token_advice: str) -> None:
        # Imported here: it takes longer than everything else that a command needs.
        from reactorcide.cli.transport import Adapter, HttpSession, LocalAdapter

        self._data_dir = service if isinstance(service, Path) else None
        self.url = str(service) if self._data_dir is None else f"unix:{_socket_path(self._data_dir)}"
        self._base_url = self.url if self._data_dir is None else _LOCAL_BASE_URL
        self.is_local = is_loopback(self._base_url)
        """The service's address is one of this host."""
        self._has_token = bool(token)
        self._token_advice = token_advice
        self._session = HttpSession()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, Adapter())
        # A proxy cannot reach this host's loopback.
        self._session.trust_env = not self.is_local
        if not self._session.trust_env:
            # The only variable that still applies.
            self._session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        # A callable, because .netrc would override a header.
        self._session.auth = _Bearer(token) if token else _nothing
        if self._data_dir is not None:
            self._session.mount(_LOCAL_BASE_URL, LocalAdapter(self._data_dir, CONNECT_S))
        self._begins_line = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def _json(self, method: str, path: str, **arguments: Any) -> Json:
        with self._send(method, path, **arguments) as response:
            content = self._content(response, _MAX_JSON_BYTES)
        if len(content) > _MAX_JSON_BYTES:
            raise self._too_long("a body", _MAX_JSON_BYTES)
        try:
            body = json.loads(content)
        except (ValueError, RecursionError) as exc:
            raise self._stranger(response) from exc
        if not isinstance(body, dict):
            raise self._stranger(response)
        return body

    def _stream(self, path: str, query: Json, *, silence_s: float) -> Iterator[bytes]:
        with self._send("GET", path, params=query, silence_s=silence_s) as response, self._translated():
            # Signals that the service has answered.
            yield b""
            yield from self._chunks(response)

    def _chunks(self, response: "requests.Response") -> Iterator[bytes]:
        """Yield a body of any length, which may take any time; see ``silence_s``."""
        from reactorcide.cli.transport import limit_body

        limit_body(response, _MAX_UNDECODED_BYTES)
        for chunk in response.iter_content(BLOCK_BYTES):
            yield chunk
            limit_body(response, _MAX_UNDECODED_BYTES)

    def _content(self, response: "requests.Response", max_bytes: int) -> bytearray:
        """Return a whole body; of a longer one its beginning, which has more than ``max_bytes``."""
        from reactorcide.cli.transport import limit_body

        content = bytearray()
        with self._translated():
            limit_body(response, max_bytes + _MAX_UNDECODED_BYTES, _BODY_S)
            for chunk in response.iter_content(BLOCK_BYTES):
                content += chunk
                if len(content) > max_bytes:
                    break
        return content

    def _send(
        self,
        method: str,
        path: str,
        *,
        silence_s: float = ANSWER_S,
        also: Collection[int] = (),
        **arguments: Any,
    ) -> "requests.Response":
        """Send a request and return the answer, whose body is still to be read.

        ``also`` are statuses that are no error.

        ``silence_s`` limits the time from the end of the request to the end of the answer's head, and then
        each wait for a part of its body.
        """
        with self._translated():
            response = self._session.request(
                method,
                self._base_url + _PREFIX + path,
                timeout=(CONNECT_S, silence_s),
                stream=True,
                **arguments,
            )
        if response.status_code < 300 or response.status_code in also:
            return response
        with response:
            raise self._refusal(response)

    def _refusal(self, response: "requests.Response") -> ServiceError:
        status = response.status_code
        content = bytearray()
        try:
            if 300 <= status < 400 and "Location" in response.headers:
                return self._redirected(response)
            content = self._content(response, _MAX_ERROR_BYTES)
            answer = json.loads(content)
            message = str(answer["message"])
            fields = [str(item["field"]) for item in answer.get("details", ())]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            # Not every redirect is to a valid address.
            return self._stranger(response, content)
        if status == 401:
            message = f"{message} ({self._token_advice})" if self._has_token else self._token_advice
        kind = ServiceAway if status in (502, 503, 504) else ServiceError
        return kind(message, status=status, fields=fields)

    def _redirected(self, response: "requests.Response") -> ServiceError:
        url = response.request.url or self.url
        path = urlsplit(url).path.removeprefix(urlsplit(self.url).path)
        there = urlsplit(urljoin(url, response.headers["Location"]))
        target = f"{there.scheme}://{there.netloc}{there.path}"
        if target.endswith(path):
            return ServiceError(
                f"{self.url} has moved; set REACTORCIDE_API_URL to {target.removesuffix(path)}"
            )
        return ServiceError(
            f"{_in_front(response)} of {self.url} sends on to {target}, a page to log in perhaps; "
            + _LET_THROUGH
        )

    def _stranger(self, response: "requests.Response", content: bytes | bytearray = b"") -> ServiceError:
        """Return the error for an answer that is not from the service, but mostly from a proxy."""
        status = response.status_code
        who = f"{_in_front(response)} of {self.url}"
        if status in (502, 503, 504):
            return ServiceAway(f"{who} gets no answer from the service (status {status}); try again")
        if status == 413:
            body = response.request.headers.get("Content-Length", "")
            size = f"a request of {format_size(int(body))}" if body.isdigit() else "a request of this size"
            return ServiceError(
                f"{who} refuses {size} (status 413), and the service has not seen it; raise the limit there, "
                "which for nginx is client_max_body_size"
            )
        if status in (401, 407):
            return ServiceError(
                f"{who} wants a login of its own (status {status}), and the service has not seen the token; "
                f"{_LET_THROUGH}"
            )
        if status == 400 and b"HTTPS port" in content:
            return ServiceError(f"{self.url} speaks TLS: set REACTORCIDE_API_URL to an address with https://")
        return ServiceError(
            f"what answers at {self.url} (status {status}) is not Reactorcide, or something in front of it; "
            "check REACTORCIDE_API_URL"
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from requests import exceptions

        from reactorcide.cli.transport import TooLong

        try:
            yield
        except TooLong as exc:
            raise self._too_long(exc.what, exc.max_bytes) from exc
        except exceptions.SSLError as exc:
            if "CERTIFICATE_VERIFY_FAILED" not in str(exc):
                raise ServiceError(
                    f"no TLS can be spoken with {self.url}: {exc}; does REACTORCIDE_API_URL have to begin "
                    "with http:// in place of https://?"
                ) from exc
            raise ServiceError(f"the certificate of {self.url} cannot be trusted: {exc}") from exc
        except exceptions.ConnectTimeout as exc:
            raise ServiceAway(self._nobody()) from exc
        except exceptions.Timeout as exc:
            raise self._too_slow() from exc
        except exceptions.ConnectionError as exc:
            raise self._unconnected(exc) from exc
        except exceptions.ChunkedEncodingError as exc:
            raise ServiceAway(f"the connection to {self.url} broke; try again") from exc
        except (exceptions.RequestException, ValueError) as exc:
            raise ServiceError(f"the request to {self.url} failed: {exc}; check REACTORCIDE_API_URL") from exc

    def _unconnected(self, exc: Exception) -> ServiceError:
        """Return the error for the library's ``ConnectionError``, which has a cause among its arguments."""
        from http.client import HTTPException, RemoteDisconnected

        from urllib3.exceptions import ProtocolError, ReadTimeoutError

        reason = exc.args[0] if exc.args else None
        if isinstance(reason, ReadTimeoutError):
            return self._too_slow()
        cause = reason.args[-1] if isinstance(reason, ProtocolError) else None
        if isinstance(cause, HTTPException) and not isinstance(cause, RemoteDisconnected):
            return ServiceError(
                f"what answers at {self.url} is not Reactorcide: its answer is not valid HTTP "
                f"({type(cause).__name__}: {str(cause)[:100]!r}); check REACTORCIDE_API_URL"
            )
        return ServiceAway(self._nobody())

    def _too_slow(self) -> ServiceAway:
        return ServiceAway(f"the service at {self.url} takes too long to answer; try again")

    def _too_long(self, what: str, max_bytes: int) -> ServiceError:
        return ServiceError(
            f"what answers at {self.url} sends {what} of more than {format_size(max_bytes)}, "
            "as no Reactorcide does; check REACTORCIDE_API_URL"
        )

    def _nobody(self) -> str:
        if self._data_dir is not None:
            return _nobody_in(self._data_dir)
        return (
            f"no service answers at {self.url}; start one with 'reactorcide serve', "
            "or set REACTORCIDE_API_URL to where it is"
        )


class _Bearer:
    """Puts the token into each request."""

    def __init__(self, token: str) -> None:
        # As bytes, because the library encodes text as Latin-1.
        self._header = f"Bearer {token}".encode()

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = self._header
        return request


def _nothing(request: Any) -> Any:
    return request


def _in_front(response: "requests.Response") -> str:
    """Return a name for the proxy that answered instead of the service."""
    name = response.headers.get("Server", "")
    return f"a proxy ({name[:50]}) in front" if name and name.isprintable() else "a proxy in front"


def _socket_path(data_dir: Path) -> Path:
    return Settings(data_dir=data_dir).socket_path


def _nobody_in(data_dir: Path) -> str:
    try:
        owner = lock_owner(data_dir)
    except OSError:
        owner = None
    if owner is not None:
        return (
            f"the service in {data_dir} (process {owner}) does not answer on {_socket_path(data_dir).name} "
            "there: it is starting or stopping, or says in its log why it has no such socket; then set "
            "REACTORCIDE_API_URL to its address, and REACTORCIDE_API_TOKEN"
        )
    return (
        f"no service runs in {data_dir}; start one with 'reactorcide serve', or set REACTORCIDE_API_URL to "
        "where it is, and REACTORCIDE_API_TOKEN"
    )


def is_loopback(url: str) -> bool:
    """Return whether the host of a URL is loopback."""
    return networks.is_loopback(urlsplit(url).hostname or "")
