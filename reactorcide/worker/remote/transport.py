"""HTTP to the service, with its errors translated."""

import json
import math
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from reactorcide.domain.errors import (
    AttemptStale,
    ConfigurationError,
    InvalidInput,
    JobFailed,
    LogConflict,
    NotFound,
    ObjectStoreError,
    SessionGone,
    TooLarge,
    Unauthorized,
)
from reactorcide.domain.workers import INSTANCE_HEADER, LEASE_HEADER, LOG_ENDS_HEADER
from reactorcide.lib.networks import is_loopback
from reactorcide.lib.records import record

_TIMEOUT_S = 30.0
_MAX_ANSWER_BYTES = 64 << 20
_MAX_ERROR_BYTES = 64 << 10
_CHUNK_BYTES = 1 << 18
_MAX_IDLE = 8
_KEEPALIVE_S = 15
_SURELY_OPEN_S = 5.0
"""The service keeps an idle connection for longer."""


REFUSALS = (InvalidInput, TooLarge, NotFound)
"""What the service says of what it was sent."""


class ServiceAway(ObjectStoreError):
    """The service was not reached, or could not do what it was asked; trying again later may help.

    It is an error of the store as well: logs and artifacts are stored through the service.
    """


@record
class Address:
    """Where the service is."""

    is_tls: bool
    host: str
    port: int
    path: str

    @staticmethod
    def of(url: str) -> "Address":
        """Return the address in a URL; raises ``ConfigurationError``, also for plain HTTP over a network."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as exc:
            raise ConfigurationError(f"--server {url} is not a URL: {exc}") from exc
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ConfigurationError(f"--server {url} is not a URL like https://ci.example.com")
        is_tls = parts.scheme == "https"
        if not is_tls and not is_loopback(parts.hostname):
            raise ConfigurationError(
                f"--server {url} would send secrets over the network in plain text: use https://, which the "
                "service serves with --tls-cert, or behind a proxy"
            )
        return Address(is_tls, parts.hostname, port or (443 if is_tls else 80), parts.path.rstrip("/"))


class Transport:
    """Calls of the service below ``/api/v1/worker``. Thread-safe; connections are kept and used again.

    Raises ``ServiceAway``, and the errors that the service names: ``AttemptStale`` only from the installation
    ``instance_id``.
    """

    def __init__(self, url: str, secret: Callable[[], str | None], ca_file: str | None = None) -> None:
        """``secret`` returns the worker's secret; ``ca_file`` has certificates to trust besides the usual."""
        self._url = url
        self._address = Address.of(url)
        self._secret = secret
        self._lock = threading.Lock()
        self._idle: list[tuple[HTTPConnection, float]] = []
        """The idle connections, and since when; the one that was used last is the last."""
        self._tls: ssl.SSLContext | None = None
        self.instance_id: str | None = None
        if self._address.is_tls:
            try:
                self._tls = ssl.create_default_context(cafile=ca_file)
            except OSError as exc:
                raise ConfigurationError(f"the certificates {ca_file} cannot be read: {exc}") from exc

    def close(self) -> None:
        """Close the idle connections; safe to repeat."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes | None = None,
        *,
        lease: str | None = None,
        timeout_s: float = _TIMEOUT_S,
        opened: Callable[[HTTPConnection], None] = lambda connection: None,
    ) -> Any:
        """Return the JSON of an answer, ``None`` without one. All calls are safe to repeat.

        ``opened`` gets the connection before the request is sent, and may raise.
        """
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = self._headers(lease) | ({} if data is None else {"Content-Type": kind})
        deadline = monotonic() + timeout_s
        while True:
            connection, is_used = self._connection(timeout_s)
            try:
                _connect(connection)
                opened(connection)
                connection.request(method, self._path(path), data, headers)
                response = connection.getresponse()
            except (OSError, HTTPException) as exc:
                connection.close()
                # The service closes a connection that was idle for long.
                if is_used and not isinstance(exc, TimeoutError) and monotonic() < deadline:
                    continue
                raise self._away(exc) from exc
            except BaseException:
                connection.close()
                raise
            return self._answer(connection, response, deadline)

    def send(self, method: str, path: str, chunks: Iterable[bytes], *, lease: str) -> Any:
        """Send a body in pieces, and return the JSON of the answer; raises also what ``chunks`` raises."""
        # A body in pieces cannot be sent again, so that the connection must not have been idle for long.
        connection, _ = self._connection(_TIMEOUT_S, max_idle_s=_SURELY_OPEN_S)
        headers = self._headers(lease) | {
            "Content-Type": "application/octet-stream",
            "Transfer-Encoding": "chunked",
        }
        try:
            _connect(connection)
        except (OSError, HTTPException) as exc:
            connection.close()
            raise self._away(exc) from exc
        # Not the errors of the chunks: they may come from the engine.
        pieces = _Remembering(chunks)
        try:
            connection.request(method, self._path(path), pieces, headers, encode_chunked=True)
        except (OSError, HTTPException) as exc:
            if pieces.error is exc:
                connection.close()
                raise
            # The service may have refused the rest: then its answer is there.
            with suppress(OSError, HTTPException):
                response = connection.getresponse()
                # Nothing can follow half a body.
                response.will_close = True
                return self._answer(connection, response, monotonic() + _TIMEOUT_S)
            connection.close()
            raise self._away(exc) from exc
        except BaseException:
            connection.close()
            raise
        try:
            response = connection.getresponse()
        except (OSError, HTTPException) as exc:
            connection.close()
            raise self._away(exc) from exc
        return self._answer(connection, response, monotonic() + _TIMEOUT_S)

    def stream(self, path: str, *, lease: str) -> Iterator[bytes]:
        """Yield the bytes of an answer; the request is sent with the first piece."""
        connection = self._new_connection(_TIMEOUT_S)
        try:
            connection.request("GET", self._path(path), headers=self._headers(lease))
            response = connection.getresponse()
            if response.status != 200:
                self._answer(connection, response, monotonic() + _TIMEOUT_S)
                raise ServiceAway(f"the service answered {response.status} in place of a file")
            while chunk := response.read(_CHUNK_BYTES):
                yield chunk
        except (OSError, HTTPException) as exc:
            if isinstance(exc, ServiceAway):
                raise
            raise self._away(exc) from exc
        finally:
            connection.close()

    def _headers(self, lease: str | None) -> dict[str, str]:
        secret = self._secret()
        return {
            **({} if secret is None else {"Authorization": f"Bearer {secret}"}),
            **({} if lease is None else {LEASE_HEADER: lease}),
        }

    def _path(self, path: str) -> str:
        return f"{self._address.path}/api/v1/worker/{path}"

    def _connection(self, timeout_s: float, max_idle_s: float = math.inf) -> tuple[HTTPConnection, bool]:
        """Return a connection, and whether it was used before."""
        with self._lock:
            is_recent = bool(self._idle) and monotonic() - self._idle[-1][1] < max_idle_s
            connection = self._idle.pop()[0] if is_recent else None
        if connection is None:
            return self._new_connection(timeout_s), False
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        return connection, True

    def _new_connection(self, timeout_s: float) -> HTTPConnection:
        host, port = self._address.host, self._address.port
        if self._tls is not None:
            return HTTPSConnection(host, port, timeout=timeout_s, context=self._tls)
        return HTTPConnection(host, port, timeout=timeout_s)

    def _answer(self, connection: HTTPConnection, response: HTTPResponse, deadline: float) -> Any:
        is_error = response.status >= 400
        try:
            data = _read(response, _MAX_ERROR_BYTES if is_error else _MAX_ANSWER_BYTES, deadline)
        except (OSError, HTTPException, ValueError) as exc:
            connection.close()
            raise self._away(exc) from exc
        if response.will_close:
            connection.close()
        else:
            with self._lock:
                is_kept = len(self._idle) < _MAX_IDLE
                if is_kept:
                    self._idle.append((connection, monotonic()))
            if not is_kept:
                connection.close()
        try:
            content = json.loads(data) if data else None
        except ValueError as exc:
            raise self._away(exc) from exc
        if not is_error:
            return content
        raise self._error(response, content)

    def _error(self, response: HTTPResponse, content: Any) -> Exception:
        is_ours = isinstance(content, dict) and "error" in content
        code = content.get("error") if is_ours else None
        message = str(content.get("message", "")) if is_ours else f"HTTP status {response.status}"
        instance_id = response.headers.get(INSTANCE_HEADER)
        is_known = instance_id is not None and self.instance_id in (None, instance_id)
        if code == "attempt_stale" and is_known:
            return AttemptStale(message)
        if code == "session_gone" and is_known:
            return SessionGone(message)
        if code == "job_failed" and is_known:
            return JobFailed(message)
        if code == "log_conflict" and is_known:
            log_bytes, _, index_bytes = response.headers.get(LOG_ENDS_HEADER, "0:0").partition(":")
            return LogConflict(message, int(log_bytes), int(index_bytes))
        if code in ("unauthorized", "forbidden"):
            return Unauthorized(message)
        kinds = {"invalid_input": InvalidInput, "payload_too_large": TooLarge, "not_found": NotFound}
        if code in kinds and is_known:
            error: Exception = kinds[code](message)
            return error
        return ServiceAway(f"the service at {self._url} answered: {message}")

    def _away(self, exc: Exception) -> ServiceAway:
        if isinstance(exc, ssl.SSLCertVerificationError):
            return ServiceAway(
                f"the certificate of {self._url} is not trusted: {exc.verify_message}; name the certificate "
                "of its authority with --ca-file, or in --server the host that it was made for"
            )
        reason = str(exc) or type(exc).__name__
        return ServiceAway(f"the service at {self._url} does not answer: {reason}")


def _connect(connection: HTTPConnection) -> None:
    """Connect, unless that is done, and have TCP probe a silent connection.

    What is between may forget one while a call is held.
    """
    if connection.sock is None:
        connection.connect()
        _keep_alive(connection)


def _keep_alive(connection: HTTPConnection) -> None:
    sock = connection.sock
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), _KEEPALIVE_S)


def interrupt(connection: HTTPConnection) -> None:
    """End the call on a connection, from any thread: it fails as if the service had gone."""
    sock = connection.sock
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


class _Remembering:
    """Yields chunks, and remembers the error that they raise."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from filter(None, self._chunks)
        except BaseException as exc:
            self.error = exc
            raise


def _read(response: HTTPResponse, max_bytes: int, deadline: float) -> bytes:
    """Return a body; raises ``ValueError`` above ``max_bytes`` or after the deadline."""
    data = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):
        data += chunk
        if len(data) > max_bytes:
            raise ValueError(f"the answer is longer than {max_bytes} bytes")
        if monotonic() > deadline:
            raise ValueError("the answer did not arrive in time")
    # The end may not have been noticed, and then the connection would not be used again.
    response.read()
    return bytes(data)
