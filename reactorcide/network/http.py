"""Sending HTTP requests to other hosts, such as forges.

Every connection is made to an address that was checked just before: a name that resolves to another address a
moment later gains nothing, and neither does a redirect. The certificate is checked against the name. Of the
environment, SSL_CERT_FILE and SSL_CERT_DIR count, as for git; proxies and .netrc do not.
"""

import os
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

import reactorcide
from reactorcide.domain.errors import RequestFailed
from reactorcide.domain.http import HttpAnswer, HttpRequest
from reactorcide.network.addresses import Address, resolve
from reactorcide.threads import call_in_thread, start_thread

_PORTS = {"http": 80, "https": 443}
_REPEATED = (301, 302, 307, 308)
"""Redirects after which the same request is sent again. A 303 leads to another page, which is not needed."""
_MAX_REDIRECTS = 5
_HEADERS = {"User-Agent": f"reactorcide/{reactorcide.__version__}", "Accept-Encoding": "identity"}


class HttpClient:
    """Sends requests, each on a connection of its own. Thread-safe.

    ``refusal`` returns a phrase that says why an address may not be reached, ``None`` if it may.
    ``timeout_s`` is for everything together, from resolving the name to the end of the answer, and redirects.
    """

    def __init__(
        self,
        refusal: Callable[[Address], str | None],
        *,
        timeout_s: float = 30.0,
        max_answer_bytes: int = 1 << 20,
        resolve: Callable[[str], list[Address]] = resolve,
    ) -> None:
        self._refusal = refusal
        self._timeout_s = timeout_s
        self._max_answer_bytes = max_answer_bytes
        self._resolve = resolve
        self._tls = _tls_context()

    def send(self, request: HttpRequest) -> HttpAnswer:
        """Send a request and return the answer, whatever its status.

        A redirect on the same host is followed with the same request; of the answer's body no more than
        ``max_answer_bytes`` are read. Raises ``RequestFailed`` if there was no answer; the request may have
        arrived all the same.
        """
        deadline = monotonic() + self._timeout_s
        for _ in range(_MAX_REDIRECTS + 1):
            answer = self._send_once(request, deadline)
            location = answer.headers.get("location")
            if answer.status not in _REPEATED or location is None:
                return answer
            where = _origin(request.url)
            try:
                target = urljoin(request.url, location)
                is_same_host = _is_same_host(urlsplit(request.url), urlsplit(target))
            except ValueError as exc:
                raise RequestFailed(f"{where} redirects to an invalid URL") from exc
            if not is_same_host:
                raise RequestFailed(
                    f"{where} redirects to another host, which is not followed: {_origin(target)}"
                )
            request = replace(request, url=target)
        raise RequestFailed(f"{_origin(request.url)} redirects more than {_MAX_REDIRECTS} times")

    def _send_once(self, request: HttpRequest, deadline: float) -> HttpAnswer:
        headers = {**_HEADERS, **request.headers}
        try:
            origin = _origin(request.url)
            prepared = requests.Request(
                request.method, request.url, headers=headers, data=request.body or None
            ).prepare()
        except (requests.exceptions.RequestException, ValueError) as exc:
            # Without the URL, which may be secret.
            raise RequestFailed("the request cannot be sent: its URL or a header is not valid") from exc
        connection = _Connection(self._addresses(origin, request.url, deadline), deadline)
        try:
            adapter = _Adapter(connection.open, self._tls)
            with adapter.send(prepared, stream=True, timeout=connection.remaining_s()) as response:
                if monotonic() >= deadline:
                    # Python accepts truncated headers as complete.
                    raise self._too_slow(origin, may_arrive=True)
                return HttpAnswer(
                    status=response.status_code,
                    headers={name.lower(): value for name, value in response.headers.items()},
                    body=self._body(response),
                )
        except (requests.exceptions.RequestException, HTTPError, OSError) as exc:
            may_arrive = connection.is_open
            if monotonic() >= deadline:
                raise self._too_slow(origin, may_arrive=may_arrive) from exc
            raise RequestFailed(f"cannot reach {origin}: {_reason(exc)}", may_arrive=may_arrive) from exc
        finally:
            connection.close()

    def _body(self, response: requests.Response) -> bytes:
        try:
            body: bytes = response.raw.read(self._max_answer_bytes, decode_content=False)
        except (HTTPError, OSError):
            # The status is the result of the request, even without a complete body.
            return b""
        return body

    def _addresses(self, origin: str, url: str, deadline: float) -> list[Address]:
        """Return the addresses of a URL's host, all of which may be reached."""
        host = urlsplit(url).hostname or ""
        try:
            # The owner of a name can make the system's resolver wait.
            addresses = call_in_thread(lambda: self._resolve(host), "resolve").result(deadline - monotonic())
        except TimeoutError as exc:
            raise self._too_slow(origin) from exc
        except OSError as exc:
            raise RequestFailed(f"cannot reach {origin}: its host has no address ({_reason(exc)})") from exc
        for address in addresses:
            if (problem := self._refusal(address)) is not None:
                raise RequestFailed(
                    f"cannot reach {origin}: {address} is {problem}; "
                    f"the operator can allow it with --allow-address {address}"
                )
        return addresses

    def _too_slow(self, origin: str, *, may_arrive: bool = False) -> RequestFailed:
        return RequestFailed(f"{origin} did not answer within {self._timeout_s:g} s", may_arrive=may_arrive)


class _Connection:
    """A connection to one of some addresses, which ends at the deadline, whatever it waits for.

    Timeouts of single reads would not end an answer that comes byte by byte.
    """

    def __init__(self, addresses: list[Address], deadline: float) -> None:
        self._addresses = addresses
        self._deadline = deadline
        self._closed = threading.Event()
        self.is_open = False
        """Whether there is a connection, or was one."""

    def remaining_s(self) -> float:
        """Return the remaining time; never 0, which would make a socket non-blocking."""
        return max(0.001, self._deadline - monotonic())

    def open(self, port: int) -> socket.socket:
        """Connect to the first address that answers; raises ``OSError``."""
        problem: OSError | None = None
        for number, address in enumerate(self._addresses):
            # A part of the time for each, as long as there are others.
            timeout_s = self.remaining_s() / (len(self._addresses) - number)
            try:
                opened = socket.create_connection((str(address), port), timeout_s)
            except OSError as exc:
                problem = exc
                continue
            self.is_open = True
            opened.settimeout(self.remaining_s())
            try:
                self._watch(opened)
            except BaseException:
                opened.close()
                raise
            return opened
        raise problem or OSError("its host has no address")

    def close(self) -> None:
        """Stop watching the deadline."""
        self._closed.set()

    def _watch(self, opened: socket.socket) -> None:
        # A copy, because TLS takes the socket over.
        copy = opened.dup()

        def end_in_time() -> None:
            with copy:
                if not self._closed.wait(self.remaining_s()):
                    # Fails if the other side has already closed.
                    with suppress(OSError):
                        copy.shutdown(socket.SHUT_RDWR)

        try:
            start_thread(end_in_time, "deadline")
        except BaseException:
            copy.close()
            raise


class _Adapter(HTTPAdapter):
    """Makes ``requests`` open its connection with a function, which gets the port."""

    def __init__(self, connect: Callable[[int], socket.socket], tls: ssl.SSLContext) -> None:
        self._connect = connect
        self._tls = tls
        super().__init__()

    def get_connection_with_tls_context(self, request: Any, *_: Any, **__: Any) -> HTTPConnectionPool:
        """Return a pool of one connection."""
        connect = self._connect
        url = urlsplit(request.url)
        port = url.port or _PORTS[url.scheme]

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return connect(port)

        class Encrypted(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return connect(port)

        pool: HTTPConnectionPool
        if url.scheme == "https":
            pool = HTTPSConnectionPool(url.hostname or "", port, ssl_context=self._tls)
            pool.ConnectionCls = Encrypted
        else:
            pool = HTTPConnectionPool(url.hostname or "", port)
            pool.ConnectionCls = Plain
        return pool

    def cert_verify(self, *_: Any, **__: Any) -> None:
        """Add no certificates of authorities: the context has them."""


def _tls_context() -> ssl.SSLContext:
    """Return a context that checks certificates against the system's authorities, as git does."""
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    directory = paths.capath or ""
    if not os.path.isfile(paths.cafile or "") and not (os.path.isdir(directory) and os.listdir(directory)):
        context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    return context


def _origin(url: str) -> str:
    """Return scheme and host of a URL, without the rest, which may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _is_same_host(old: SplitResult, new: SplitResult) -> bool:
    """Return whether a request may be sent again to another URL: same host, and not without encryption."""
    if new.scheme not in _PORTS or old.hostname != new.hostname:
        return False
    old_port, new_port = old.port or _PORTS[old.scheme], new.port or _PORTS[new.scheme]
    is_upgrade = (old.scheme, old_port, new.scheme, new_port) == ("http", 80, "https", 443)
    return is_upgrade or (old.scheme, old_port) == (new.scheme, new_port)


def _reason(exc: BaseException) -> str:
    """Return the innermost reason of a failed request, without the objects that the libraries name."""
    reason = exc
    while True:
        inner = getattr(reason, "reason", None) or next(
            (item for item in reason.args if isinstance(item, BaseException)), None
        )
        if not isinstance(inner, BaseException):
            break
        reason = inner
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {reason.verify_message}"
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
