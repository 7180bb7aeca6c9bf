"""A thin client of the REST API, for the commands that only talk to a service."""

import ipaddress
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from urllib.parse import quote, urljoin, urlsplit

from reactorcide.cli.datadir import lock_owner
from reactorcide.domain.errors import ConfigurationError, ReactorcideError
from reactorcide.domain.jobs import FINAL, WAITING
from reactorcide.lib.sizes import format_size
from reactorcide.settings import Settings, default_data_dir

if TYPE_CHECKING:
    import requests

_PREFIX = "/api/v1"
_LOCAL_BASE_URL = "http://localhost"
"""What is asked over the socket in the data directory."""
_CONNECT_S = 5.0
_ANSWER_S = 60.0
_SILENCE_S = 300.0
"""How long a followed log may be silent before the connection is taken for dead, and made again."""
_PATIENCE_S = 60.0
_PAUSE_S = 0.5
_POLL_S = 1
_BLOCK_BYTES = 1 << 16
_LAST_ID = "Last-Event-ID"
_START = "X-Log-Position"
_LET_THROUGH = "it has to let requests to /api/v1 pass, which bring a token of their own"

Json = dict[str, Any]


class ServiceError(ReactorcideError):
    """The service refused, or what answered is no Reactorcide; ``fields`` are those to blame, if any are."""

    def __init__(self, message: str, *, status: int | None = None, fields: Collection[str] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.fields = fields


class ServiceAway(ServiceError):
    """The service does not answer, or not now; it may later."""


class Client:
    """The service at a URL, or the one that works on a data directory of this user.

    ``token_advice`` is said where the token is refused, or there is none. Every method raises
    ``ServiceError`` with a sentence for a person, or ``Stranger`` where the data directory is not this
    user's. Not for several threads at once.
    """

    def __init__(self, service: str | Path, token: str | None, token_advice: str) -> None:
        # Imported here: it takes longer than everything else that a command needs.
        import requests

        self._data_dir = service if isinstance(service, Path) else None
        self.url = str(service) if self._data_dir is None else f"unix:{_socket_path(self._data_dir)}"
        self._base_url = self.url if self._data_dir is None else _LOCAL_BASE_URL
        self.is_local = _is_loopback(self._base_url)
        """The service is on this host, as far as its address tells."""
        self._has_token = bool(token)
        self._token_advice = token_advice
        self._session = requests.Session()
        # A proxy that the environment names can't know what is meant by this host.
        self._session.trust_env = not self.is_local
        if not self._session.trust_env:
            # Of the environment this alone counts then.
            self._session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        # As a callable, or a .netrc would win over it.
        self._session.auth = _Bearer(token) if token else _nothing
        if self._data_dir is not None:
            from reactorcide.cli.transport import LocalAdapter

            self._session.mount(_LOCAL_BASE_URL, LocalAdapter(self._data_dir, _CONNECT_S))
        self._begins_line = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def health(self) -> Json:
        """Return what the service says of itself and of the token."""
        return self._json("GET", "/health", silence_s=_CONNECT_S)

    def submit(self, definition: Json) -> Json:
        """Submit a job and return it."""
        return self._json("POST", "/jobs", json=definition)

    def jobs(self, filters: Mapping[str, Any]) -> Json:
        """Return a page of jobs; what is ``None`` or empty among the filters is left out."""
        return self._json("GET", "/jobs", params=filters)

    def job(self, job_id: str, *, wait_s: float = 0) -> Json:
        """Return a job, at once or as soon as its status changes within ``wait_s``."""
        return self._json("GET", f"/jobs/{job_id}", params={"wait": wait_s} if wait_s else {})

    def cancel(self, job_id: str) -> Json:
        """Cancel a job and return it; again is fine."""
        return self._json("PUT", f"/jobs/{job_id}/cancel")

    def rerun(self, job_id: str) -> Json:
        """Submit a job again and return the new one."""
        return self._json("POST", f"/jobs/{job_id}/rerun")

    def delete(self, job_id: str) -> None:
        """Delete a job."""
        self._send("DELETE", f"/jobs/{job_id}")

    def pin(self, job_id: str, *, pinned: bool) -> Json:
        """Pin a job, or take its pin away, and return it; again is fine."""
        return self._json("PUT" if pinned else "DELETE", f"/jobs/{job_id}/pin")

    def workers(self) -> list[Json]:
        """Return the workers."""
        workers: list[Json] = self._json("GET", "/workers")["workers"]
        return workers

    def artifacts(self, job_id: str) -> Json:
        """Return the listing of what a job left."""
        return self._json("GET", f"/jobs/{job_id}/artifacts")

    def artifact(self, job_id: str, path: str) -> Iterator[bytes]:
        """Yield the bytes of one artifact, with an empty chunk first."""
        yield from self._stream(f"/jobs/{job_id}/artifacts/{quote(path)}", {}, silence_s=_ANSWER_S)

    def has_source(self, source_id: str) -> bool:
        """Tell whether the service has a source that was uploaded with this token's user."""
        try:
            self._json("GET", f"/sources/{source_id}")
        except ServiceError as exc:
            if exc.status == 404:
                return False
            raise
        return True

    def upload(self, source: BinaryIO, size_bytes: int, advance: Callable[[int], None]) -> Json:
        """Upload a tar.gz as a source and return what the service says of it."""
        return self._json(
            "POST",
            "/sources",
            data=_Upload(source, size_bytes, advance),
            headers={"Content-Type": "application/gzip"},
            # It is looked through before it is answered.
            silence_s=_SILENCE_S,
        )

    def log(self, job_id: str, part: Json) -> Iterator[bytes]:
        """Yield the part of a log that the query's parameters name, as far as it is printed by now.

        The first chunk is empty.
        """
        yield from self._stream(f"/jobs/{job_id}/logs", part, silence_s=_ANSWER_S)

    def follow(
        self,
        job_id: str,
        *,
        attempt: int | None = None,
        tail: int | None = None,
        stream: str | None = None,
        timestamps: bool = False,
    ) -> Iterator[bytes]:
        """Yield a log as it grows until it closes, over all further attempts where none is named.

        An empty chunk comes at each connection that is made.
        A connection that breaks is made again for up to a minute, and goes on where it was: no byte is left
        out, and none is yielded twice. Of one ``stream``, or with times, what is no UTF-8 is replaced.
        """
        number: int = attempt or self.job(job_id)["attempt"]
        position: str | None = None
        patience = _Patience(job_id)
        follow: Callable[[str, Json, str | None], Iterator[tuple[bytes, str]]] = self._follow_bytes
        if stream or timestamps:
            # In events, for the bytes of such a text do not tell where in the log they were.
            follow = partial(self._follow_events, stream=stream, timestamps=timestamps)
        while True:
            # The attempt is named in each request, for otherwise one that comes after a break could
            # be answered with the next attempt's log.
            query = {"attempt": number, "tail": tail, "follow": "true"}
            try:
                for chunk, reached in follow(job_id, query, position):
                    patience.renew()
                    position = reached
                    yield chunk
                latest = number if attempt else self.job(job_id)["attempt"]
            except ServiceAway as exc:
                patience.wait(exc)
                continue
            if latest == number:
                return
            number, position, tail = number + 1, None, None

    def _follow_bytes(self, job_id: str, query: Json, position: str | None) -> Iterator[tuple[bytes, str]]:
        """Yield chunks, each with the place in the log that it ends at."""
        headers = {} if position is None else {_LAST_ID: position}
        with self._opened(f"/jobs/{job_id}/logs", query, headers) as response:
            attempt, _, start = self._start(response).partition(":")
            offset = int(start)
            yield b"", f"{attempt}:{offset}"
            for chunk in response.iter_content(None):
                offset += len(chunk)
                yield chunk, f"{attempt}:{offset}"

    def _follow_events(
        self, job_id: str, query: Json, position: str | None, *, stream: str | None, timestamps: bool
    ) -> Iterator[tuple[bytes, str]]:
        """Yield the text of events, each with the place in the log that it ends at."""
        headers = {"Accept": "text/event-stream"} | ({} if position is None else {_LAST_ID: position})
        self._begins_line = position is None or self._begins_line
        with self._opened(f"/jobs/{job_id}/logs", query | {"stream": stream}, headers) as response:
            yield b"", self._start(response)
            fields: dict[str, str] = {}
            for line in response.iter_lines(chunk_size=None):
                name, _, value = line.decode().partition(": ")
                if line:
                    fields[name] = value
                    continue
                event, fields = fields, {}
                if "data" not in event or event.get("event") == "end":
                    continue
                data = json.loads(event["data"])
                text = data["text"].encode()
                if timestamps:
                    stamp = data["t"].encode() + b" "
                    ends_line = text.endswith(b"\n")
                    text = text[:-1].replace(b"\n", b"\n" + stamp) + text[-1:]
                    text = stamp + text if self._begins_line else text
                    self._begins_line = ends_line
                yield text, event["id"]

    def _start(self, response: "requests.Response") -> str:
        """Return where in the log an answer begins."""
        start = response.headers.get(_START)
        if start is None:
            raise self._stranger(response)
        return start

    @contextmanager
    def _opened(self, path: str, query: Json, headers: Mapping[str, str]) -> "Iterator[requests.Response]":
        response = self._send("GET", path, params=query, headers=headers, stream=True, silence_s=_SILENCE_S)
        with response, self._translated():
            yield response

    def until_started(self, job_id: str) -> Json:
        """Return the job once it does not wait any more, or has ended; patient like ``follow``."""
        return self._until(job_id, lambda status: status not in WAITING)

    def until_final(self, job_id: str) -> Json:
        """Return the job once it has ended; patient like ``follow``."""
        return self._until(job_id, lambda status: status in FINAL)

    def _until(self, job_id: str, is_enough: Callable[[str], bool]) -> Json:
        patience = _Patience(job_id)
        # The first look is without waiting: a change before the service begins to wait is none to it.
        wait_s = 0
        while True:
            asked_at = time.monotonic()
            try:
                job = self.job(job_id, wait_s=wait_s)
            except ServiceAway as exc:
                patience.wait(exc)
                continue
            if is_enough(job["status"]):
                return job
            patience.renew()
            if wait_s and time.monotonic() - asked_at < _PAUSE_S:
                # The status changed to another that is not enough, or all places for waiting are taken.
                time.sleep(_PAUSE_S / 5)
            wait_s = _POLL_S

    def _json(self, method: str, path: str, **arguments: Any) -> Json:
        response = self._send(method, path, **arguments)
        try:
            body = response.json()
        except ValueError as exc:
            raise self._stranger(response) from exc
        if not isinstance(body, dict):
            raise self._stranger(response)
        return body

    def _stream(self, path: str, query: Json, *, silence_s: float) -> Iterator[bytes]:
        response = self._send("GET", path, params=query, stream=True, silence_s=silence_s)
        with response, self._translated():
            # Tells that the service has answered.
            yield b""
            yield from response.iter_content(_BLOCK_BYTES)

    def _send(
        self, method: str, path: str, *, silence_s: float = _ANSWER_S, **arguments: Any
    ) -> "requests.Response":
        with self._translated():
            response = self._session.request(
                method,
                self._base_url + _PREFIX + path,
                timeout=(_CONNECT_S, silence_s),
                # A redirected POST would arrive as a GET.
                allow_redirects=False,
                **arguments,
            )
        if response.status_code < 300:
            return response
        with response:
            raise self._refusal(response)

    def _refusal(self, response: "requests.Response") -> ServiceError:
        status = response.status_code
        if 300 <= status < 400 and "Location" in response.headers:
            return self._redirected(response)
        try:
            answer = response.json()
            message = str(answer["message"])
            fields = [str(item["field"]) for item in answer.get("details", ())]
        except (ValueError, KeyError, TypeError, AttributeError):
            return self._stranger(response)
        if status == 401:
            message = f"{message} ({self._token_advice})" if self._has_token else self._token_advice
        kind = ServiceAway if status in (502, 503, 504) else ServiceError
        return kind(message, status=status, fields=fields)

    def _redirected(self, response: "requests.Response") -> ServiceError:
        url = response.request.url or self.url
        asked = urlsplit(url).path.removeprefix(urlsplit(self.url).path)
        there = urlsplit(urljoin(url, response.headers["Location"]))
        target = f"{there.scheme}://{there.netloc}{there.path}"
        if target.endswith(asked):
            return ServiceError(
                f"{self.url} has moved; set REACTORCIDE_API_URL to {target.removesuffix(asked)}"
            )
        return ServiceError(
            f"{_in_front(response)} of {self.url} sends on to {target}, a page to log in perhaps; "
            + _LET_THROUGH
        )

    def _stranger(self, response: "requests.Response") -> ServiceError:
        """Return what an answer means that is none of the service's: a proxy's, mostly."""
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
        if status == 400 and b"HTTPS port" in response.content:
            return ServiceError(f"{self.url} speaks TLS: set REACTORCIDE_API_URL to an address with https://")
        return ServiceError(
            f"what answers at {self.url} (status {status}) is no Reactorcide, or something in front of it; "
            "check REACTORCIDE_API_URL"
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from requests import exceptions

        try:
            yield
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
            raise ServiceAway(f"the service at {self.url} takes too long to answer; try again") from exc
        except exceptions.ConnectionError as exc:
            raise ServiceAway(self._nobody()) from exc
        except exceptions.ChunkedEncodingError as exc:
            raise ServiceAway(f"the connection to {self.url} broke; try again") from exc
        except (exceptions.RequestException, ValueError) as exc:
            # The library reads the address that an answer redirects to, and not every stranger's is one.
            raise ServiceError(f"{self.url} cannot be asked: {exc}; check REACTORCIDE_API_URL") from exc

    def _nobody(self) -> str:
        if self._data_dir is not None:
            return _nobody_in(self._data_dir)
        return (
            f"no service answers at {self.url}; start one with 'reactorcide serve', "
            "or set REACTORCIDE_API_URL to where it is"
        )


class _Upload:
    """A file whose reading is seen; the library looks for a length and for ``read``."""

    def __init__(self, file: BinaryIO, size_bytes: int, advance: Callable[[int], None]) -> None:
        self._file = file
        self._size_bytes = size_bytes
        self._advance = advance

    def __len__(self) -> int:
        return self._size_bytes

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read(_BLOCK_BYTES):
            yield chunk

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        chunk = self._file.read(max(size, _BLOCK_BYTES))
        self._advance(len(chunk))
        return chunk


class _Patience:
    """Waits while a service is away that was there before: it may be starting again."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._until: float | None = None

    def renew(self) -> None:
        """Begin anew: the service has answered."""
        self._until = None

    def wait(self, problem: ServiceAway) -> None:
        """Sleep a little; raises ``ServiceAway`` instead when a minute has passed like this."""
        if self._until is None:
            self._until = time.monotonic() + _PATIENCE_S
        if time.monotonic() > self._until:
            raise ServiceAway(_lost(self._job_id)) from problem
        time.sleep(_PAUSE_S)


class _Bearer:
    """Puts the token into each request."""

    def __init__(self, token: str) -> None:
        # As bytes, for the library would take text for Latin-1.
        self._header = f"Bearer {token}".encode()

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = self._header
        return request


def _nothing(request: Any) -> Any:
    return request


def _in_front(response: "requests.Response") -> str:
    """Name what has answered in place of the service."""
    name = response.headers.get("Server", "")
    return f"a proxy ({name[:50]}) in front" if name and name.isprintable() else "a proxy in front"


def _lost(job_id: str) -> str:
    return (
        "the connection to the service is lost, the job goes on; "
        f"follow it again with 'reactorcide jobs logs -f {job_id}'"
    )


def connect(environment: Mapping[str, str] = os.environ) -> Client:
    """Return a client of the service at ``REACTORCIDE_API_URL``, or else of this user's own one.

    That is the one that works on the data directory, over the socket in it. The token is that of
    ``REACTORCIDE_API_TOKEN`` or, over the socket alone, the one that ``serve`` has left in the directory: who
    listens at a port is not known. Raises ``ConfigurationError`` for a URL that is none.
    """
    url = environment.get("REACTORCIDE_API_URL", "").strip().rstrip("/")
    token = environment.get("REACTORCIDE_API_TOKEN", "").strip()
    if url:
        _check_url(url)
    if token:
        if not token.isprintable() or " " in token:
            raise ConfigurationError("REACTORCIDE_API_TOKEN is no token: it has spaces or control characters")
        return Client(url or _data_dir(environment), token, "the token is that of REACTORCIDE_API_TOKEN")
    advice = "set REACTORCIDE_API_TOKEN; 'reactorcide token create' makes a token on the service's host"
    if url:
        if _is_loopback(url):
            advice += (
                ". The one in the data directory goes over the socket there alone: unset REACTORCIDE_API_URL"
            )
        return Client(url, None, f"the service at {url} wants a token: {advice}")
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


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
