"""A thin client of the REST API, for the commands that only talk to a service."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

from reactorcide.cli import session
from reactorcide.cli.project_calls import ProjectCalls
from reactorcide.cli.session import Json, ServiceAway, ServiceError
from reactorcide.domain.jobs import FINAL, WAITING
from reactorcide.domain.runs import RunStatus

if TYPE_CHECKING:
    import requests

_SILENCE_S = 300.0
"""Reconnect after this time without data on a followed log."""
_PATIENCE_S = 60.0
_PAUSE_S = 0.5
_POLL_S = 1
_RUN_WAIT_S = 5
_LAST_ID = "Last-Event-ID"
_START = "X-Log-Position"
_MAX_EVENT_BYTES = 1 << 20
"""The service's events of a log have 64 KiB of text, of which a byte takes up to six in JSON."""


class Client(ProjectCalls):
    """The API: one method for each call; see ``Session``."""

    def health(self) -> Json:
        """Return the health of the service, and whether the token is valid."""
        return self._json("GET", "/health", silence_s=session.CONNECT_S)

    def readiness(self) -> Json:
        """Return for each part of the service ``ok`` or what is wrong with it, and how old that is."""
        return self._json("GET", "/ready", also=(503,))

    def submit(self, definition: Json) -> Json:
        """Submit a job and return it."""
        return self._json("POST", "/jobs", json=definition)

    def jobs(self, filters: Mapping[str, Any]) -> Json:
        """Return a page of jobs; filters that are ``None`` or empty are left out."""
        return self._json("GET", "/jobs", params=filters)

    def job(self, job_id: str, *, wait_s: float = 0) -> Json:
        """Return a job, at once or as soon as its status changes within ``wait_s``."""
        return self._json("GET", f"/jobs/{job_id}", params={"wait": wait_s} if wait_s else {})

    def why(self, job_id: str) -> str:
        """Return what a job waits for."""
        return str(self._json("GET", f"/jobs/{job_id}/why")["reason"])

    def cancel(self, job_id: str) -> Json:
        """Cancel a job and return it. Safe to repeat."""
        return self._json("PUT", f"/jobs/{job_id}/cancel")

    def rerun(self, job_id: str) -> Json:
        """Submit a job again and return the new one."""
        return self._json("POST", f"/jobs/{job_id}/rerun")

    def delete(self, job_id: str) -> None:
        """Delete a job."""
        self._send("DELETE", f"/jobs/{job_id}").close()

    def pin(self, job_id: str, *, pinned: bool) -> Json:
        """Pin or unpin a job and return it. Safe to repeat."""
        return self._json("PUT" if pinned else "DELETE", f"/jobs/{job_id}/pin")

    def create_link(self) -> Json:
        """Create a one-time link to the web page and return it."""
        return self._json("POST", "/links")

    def start_run(self, body: Json) -> Json:
        """Start a run of a workflow and return it."""
        # The service fetches the commit before it answers.
        return self._json("POST", "/runs", json=body, silence_s=_SILENCE_S)

    def runs(self, filters: Mapping[str, Any]) -> Json:
        """Return a page of runs; filters that are ``None`` or empty are left out."""
        return self._json("GET", "/runs", params=filters)

    def run(self, run_id: str, *, wait_s: float = 0) -> Json:
        """Return a run, at once or as soon as it or one of its nodes changes within ``wait_s``."""
        return self._json("GET", f"/runs/{run_id}", params={"wait": wait_s} if wait_s else {})

    def run_states(self, run: Json) -> Iterator[Json]:
        """Yield a run as it is, and again after each change, until it is over."""
        yield run
        while not RunStatus(run["status"]).is_final:
            run = self.run(run["run_id"], wait_s=_RUN_WAIT_S)
            yield run

    def cancel_run(self, run_id: str) -> Json:
        """Cancel a run and return it. Safe to repeat."""
        return self._json("POST", f"/runs/{run_id}/cancel")

    def approve_run(self, run_id: str) -> Json:
        """Approve a run that waits for it and return it. Safe to repeat."""
        return self._json("POST", f"/runs/{run_id}/approve")

    def rerun_run(self, run_id: str, *, only: str) -> Json:
        """Repeat a run and return it."""
        return self._json("POST", f"/runs/{run_id}/rerun", json={"only": only})

    def caches(self, filters: Mapping[str, Any]) -> Json:
        """Return a page of caches; filters that are ``None`` are left out."""
        return self._json("GET", "/caches", params=filters)

    def delete_cache(self, cache_id: str) -> None:
        """Delete a cache."""
        self._send("DELETE", f"/caches/{cache_id}").close()

    def delete_run(self, run_id: str) -> None:
        """Delete a run."""
        self._send("DELETE", f"/runs/{run_id}").close()

    def pin_run(self, run_id: str, *, pinned: bool) -> Json:
        """Pin or unpin a run and return it. Safe to repeat."""
        return self._json("PUT" if pinned else "DELETE", f"/runs/{run_id}/pin")

    def add_worker(self, name: str, queues: Sequence[str]) -> Json:
        """Add a worker on another machine and return it with its registration token."""
        return self._json("POST", "/workers", json={"name": name, "queues": list(queues)})

    def change_worker(self, worker_id: str, change: str) -> None:
        """Drain or resume a worker on another machine."""
        self._send("POST", f"/workers/{quote(worker_id, safe='')}/{change}").close()

    def forget_worker(self, worker_id: str) -> None:
        """Forget a worker on another machine."""
        self._send("DELETE", f"/workers/{quote(worker_id, safe='')}").close()

    def workers(self) -> list[Json]:
        """Return the workers."""
        workers: list[Json] = self._json("GET", "/workers")["workers"]
        return workers

    def artifacts(self, job_id: str) -> Json:
        """Return the list of a job's artifacts."""
        return self._json("GET", f"/jobs/{job_id}/artifacts")

    def artifact(self, job_id: str, path: str) -> Iterator[bytes]:
        """Yield the bytes of one artifact, with an empty chunk first."""
        yield from self._stream(f"/jobs/{job_id}/artifacts/{quote(path)}", {}, silence_s=session.ANSWER_S)

    def tests(self, job_id: str) -> Json:
        """Return the test results of a job."""
        return self._json("GET", f"/jobs/{job_id}/tests")

    def summary(self, job_id: str) -> Iterator[bytes]:
        """Yield the summary of a job, with an empty chunk first."""
        yield from self._stream(f"/jobs/{job_id}/summary", {}, silence_s=session.ANSWER_S)

    def has_source(self, source_id: str) -> bool:
        """Return whether this token's user has uploaded a source to the service."""
        try:
            self._json("GET", f"/sources/{source_id}")
        except ServiceError as exc:
            if exc.status == 404:
                return False
            raise
        return True

    def upload(self, source: BinaryIO, size_bytes: int, advance: Callable[[int], None]) -> Json:
        """Upload a tar.gz as a source and return the service's answer."""
        return self._json(
            "POST",
            "/sources",
            data=_Upload(source, size_bytes, advance),
            headers={"Content-Type": "application/gzip"},
            # The service checks the whole source before it answers.
            silence_s=_SILENCE_S,
        )

    def log(self, job_id: str, part: Json) -> Iterator[bytes]:
        """Yield the part of a log that the query selects, up to now.

        The first chunk is empty.
        """
        yield from self._stream(f"/jobs/{job_id}/logs", part, silence_s=session.ANSWER_S)

    def follow(
        self,
        job_id: str,
        *,
        attempt: int | None = None,
        tail: int | None = None,
        stream: str | None = None,
        timestamps: bool = False,
    ) -> Iterator[bytes]:
        """Yield a log as it grows, until it closes; without ``attempt`` also the logs of later attempts.

        Each connection yields an empty chunk first. A broken connection is retried for up to a minute and
        continues at the same position: no byte is lost or repeated. With ``stream`` or ``timestamps`` bytes
        that are not UTF-8 are replaced.
        """
        number: int = attempt or self.job(job_id)["attempt"]
        position: str | None = None
        patience = _Patience(job_id)
        follow: Callable[[str, Json, str | None], Iterator[tuple[bytes, str]]] = self._follow_bytes
        if stream or timestamps:
            # Use events: the filtered text alone does not show its position in the log.
            follow = partial(self._follow_events, stream=stream, timestamps=timestamps)
        while True:
            # Name the attempt in each request: after a reconnect the last attempt may be a later one.
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
        """Yield chunks, each with its end position in the log."""
        headers = {} if position is None else {_LAST_ID: position}
        with self._opened(f"/jobs/{job_id}/logs", query, headers) as response:
            attempt, _, start = self._start(response).partition(":")
            offset = int(start)
            yield b"", f"{attempt}:{offset}"
            for chunk in self._chunks(response):
                offset += len(chunk)
                yield chunk, f"{attempt}:{offset}"

    def _follow_events(
        self, job_id: str, query: Json, position: str | None, *, stream: str | None, timestamps: bool
    ) -> Iterator[tuple[bytes, str]]:
        """Yield the text of events, each with its end position in the log."""
        headers = {"Accept": "text/event-stream"} | ({} if position is None else {_LAST_ID: position})
        self._begins_line = position is None or self._begins_line
        with self._opened(f"/jobs/{job_id}/logs", query | {"stream": stream}, headers) as response:
            yield b"", self._start(response)
            for event in self._events(response):
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

    def _events(self, response: "requests.Response") -> Iterator[dict[str, str]]:
        """Yield the fields of each server-sent event."""
        held = bytearray()
        for chunk in self._chunks(response):
            searched = max(0, len(held) - 1)
            held += chunk
            while (end := held.find(b"\n\n", searched)) >= 0:
                lines = held[:end].decode().split("\n")
                del held[: end + 2]
                searched = 0
                yield {name: value for name, _, value in (line.partition(": ") for line in lines)}
            if len(held) > _MAX_EVENT_BYTES:
                raise self._too_long("an event", _MAX_EVENT_BYTES)

    def _start(self, response: "requests.Response") -> str:
        """Return the position in the log at which an answer begins."""
        start = response.headers.get(_START)
        if start is None:
            raise self._stranger(response)
        return start

    @contextmanager
    def _opened(self, path: str, query: Json, headers: Mapping[str, str]) -> "Iterator[requests.Response]":
        response = self._send("GET", path, params=query, headers=headers, silence_s=_SILENCE_S)
        with response, self._translated():
            yield response

    def until_started(self, job_id: str) -> Json:
        """Return the job once it has started or ended; retries like ``follow``."""
        return self._until(job_id, lambda status: status not in WAITING)

    def until_final(self, job_id: str) -> Json:
        """Return the job once it has ended; retries like ``follow``."""
        return self._until(job_id, lambda status: status in FINAL)

    def _until(self, job_id: str, is_enough: Callable[[str], bool]) -> Json:
        patience = _Patience(job_id)
        # The first request does not wait: the service reports only changes after it begins to wait.
        wait_s = 0
        while True:
            checked_at = time.monotonic()
            try:
                job = self.job(job_id, wait_s=wait_s)
            except ServiceAway as exc:
                patience.wait(exc)
                continue
            if is_enough(job["status"]):
                return job
            patience.renew()
            if wait_s and time.monotonic() - checked_at < _PAUSE_S:
                # The status changed but is not enough, or the service has no free slot for a long poll.
                time.sleep(_PAUSE_S / 5)
            wait_s = _POLL_S


class _Upload:
    """A file that reports the bytes read from it; ``requests`` needs ``__len__`` and ``read``."""

    def __init__(self, file: BinaryIO, size_bytes: int, advance: Callable[[int], None]) -> None:
        self._file = file
        self._size_bytes = size_bytes
        self._advance = advance

    def __len__(self) -> int:
        return self._size_bytes

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read(session.BLOCK_BYTES):
            yield chunk

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        chunk = self._file.read(max(size, session.BLOCK_BYTES))
        self._advance(len(chunk))
        return chunk


class _Patience:
    """Retry while the service does not answer, for up to a minute: it may be restarting."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._until: float | None = None

    def renew(self) -> None:
        """Reset the limit: the service has answered."""
        self._until = None

    def wait(self, problem: ServiceAway) -> None:
        """Sleep until the next try; raises ``ServiceAway`` a minute after the first failure."""
        if self._until is None:
            self._until = time.monotonic() + _PATIENCE_S
        if time.monotonic() > self._until:
            raise ServiceAway(_lost(self._job_id)) from problem
        time.sleep(_PAUSE_S)


def _lost(job_id: str) -> str:
    return (
        "the connection to the service is lost, the job goes on; "
        f"follow it again with 'reactorcide jobs logs -f {job_id}'"
    )
