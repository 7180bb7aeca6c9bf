#!/usr/bin/env python3
"""A client of the Reactorcide REST API, and a program that gives a tour of it.

The class ReactorcideClient is meant to be copied: it needs only ``requests``. The program below it
creates jobs, follows them, reads logs and artifacts, cancels, lists and deletes; see ``--help``.
``api_client.go`` is the same in Go.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NotRequired, Required, Self, TypedDict
from urllib.parse import quote

import requests

Status = Literal["submitted", "queued", "running", "completed", "failed", "cancelled", "submit_failed"]

FINAL_STATUSES: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})

# How long one request waits for a change. The service allows 60 s, but it waits from the status that the job
# has when the request arrives: one that changed just before then is seen only after this time.
MAX_WAIT_S = 5


class JobDefinition(TypedDict, total=False):
    """What a job is created from. What is left out, or None, gets the service's default."""

    name: Required[str]
    job_command: Required[str]  # run by /bin/sh -ec
    source_type: Required[Literal["git", "copy"]]
    description: str | None
    git_url: str | None
    git_ref: str | None
    source_path: str | None
    runner_image: str | None
    job_env_vars: dict[str, str] | None
    queue_name: str | None
    timeout_seconds: int | None
    priority: int | None
    code_dir: str | None
    job_dir: str | None
    cpu_limit: float | None
    memory_limit: int | str | None


class Job(JobDefinition):
    """A job as every call returns it: its definition and what became of it. Times are RFC 3339, in UTC."""

    job_id: str
    user_id: str
    status: Status
    created_at: str
    updated_at: str
    queued_at: str | None
    started_at: str | None
    completed_at: str | None
    exit_code: int | None
    error: str | None
    attempt: int
    worker_id: str | None
    corndogs_task_id: str | None
    logs_object_key: str | None
    artifacts_object_key: str | None
    rerun_of: str | None
    pinned: bool


class JobPage(TypedDict):
    """One page of a listing, newest job first; ``next_cursor`` is None on the last."""

    jobs: list[Job]
    total: int
    limit: int
    offset: int
    next_cursor: str | None


class Artifact(TypedDict):
    """A file that a job left behind: ``path`` below the artifacts directory, ``size`` in bytes."""

    path: str
    size: int
    sha256: str


class Verification(TypedDict):
    """What the service made of the token that came with a request."""

    verified: bool
    user_authenticated: bool
    user_id: str | None


class Health(TypedDict):
    """That the service is up, which version it is, and whether it knows the token."""

    status: str
    version: str
    verification: Verification


class FieldError(TypedDict):
    """What is wrong with one field of a request."""

    field: str
    message: str


class ErrorBody(TypedDict):
    """The body of every answer that is not a success."""

    error: str
    message: str
    details: NotRequired[list[FieldError]]


class ReactorcideError(Exception):
    """The root of everything that ReactorcideClient raises."""


class NetworkError(ReactorcideError):
    """The service could not be reached, or the connection broke or fell silent."""


class WaitTimeoutError(ReactorcideError):
    """The job had not ended when the time to wait for it was over. It goes on."""


class ApiError(ReactorcideError):
    """The service answered, but not with a success."""

    def __init__(self, status: int, body: ErrorBody, request_id: str | None) -> None:
        self.status = status
        self.code = body["error"]
        self.message = body["message"]
        self.details = body.get("details") or []
        self.request_id = request_id
        super().__init__(status, body, request_id)

    def __str__(self) -> str:
        fields = "; ".join(f"{detail['field']}: {detail['message']}" for detail in self.details)
        where = f" ({fields})" if fields else ""
        request = f", request {self.request_id}" if self.request_id else ""
        return f"{self.message.rstrip('.')}{where} [{self.status} {self.code}{request}]"


class AuthenticationError(ApiError):
    """401 or 403: the token is missing, unknown, expired, or not allowed to do this."""


class InvalidRequestError(ApiError):
    """400: a field or parameter is wrong; ``details`` says which and why."""


class ServerError(ApiError):
    """Any other answer: no such job, a conflict, too many requests, a fault of the service."""


class ReactorcideClient:
    """The jobs of a Reactorcide service.

    Every method raises NetworkError, or the ApiError that fits the answer. ``timeout_s`` is how long
    the service may take to connect and to answer. Use one client per thread.
    """

    def __init__(self, base_url: str, token: str, timeout_s: float = 10) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"the URL of the service must start with http:// or https://, not {base_url!r}")
        if not token or not token.isascii() or not token.isprintable():
            raise ValueError("the token must be a line of printable ASCII characters")
        self._base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.auth = _BearerToken(token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Closing again does nothing."""
        self._session.close()

    def health(self) -> Health:
        """Ask whether the service is up. A token that it does not know is no error here."""
        health: Health = self._json("GET", "/health")
        return health

    def create_job(self, definition: JobDefinition) -> Job:
        """Create a job; it is queued at once. Each call makes another one."""
        job: Job = self._json("POST", "/jobs", body=definition)
        return job

    def get_job(self, job_id: str, wait_s: float = 0) -> Job:
        """Get a job: now or, with ``wait_s`` (at most 60), when its status changes or that time is over.

        A job in a final status is returned at once.
        """
        params = {"wait": math.ceil(wait_s)} if wait_s > 0 else {}
        job: Job = self._json("GET", f"/jobs/{_quoted(job_id)}", params=params, wait_s=wait_s)
        return job

    def watch_job(self, job_id: str, timeout_s: float) -> Iterator[Job]:
        """Yield the job as it is, then after each change of status, until it is final.

        Changes that follow closely may come as one. Raises WaitTimeoutError after ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        job = self.get_job(job_id)
        yield job
        while job["status"] not in FINAL_STATUSES:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise WaitTimeoutError(f"job {job_id} is still {job['status']} after {timeout_s:g} s")
            seen = job["status"]
            job = self.get_job(job_id, wait_s=min(left_s, MAX_WAIT_S))
            if job["status"] != seen:
                yield job

    def list_jobs(
        self,
        *,
        limit: int = 20,
        cursor: str | None = None,
        statuses: Sequence[Status] = (),
        queue_name: str | None = None,
        source_type: Literal["git", "copy"] | None = None,
        name_prefix: str | None = None,
    ) -> JobPage:
        """Get one page of at most ``limit`` (1-1000) jobs, newest first."""
        params = {
            "limit": limit,
            "cursor": cursor,
            "status": statuses,
            "queue_name": queue_name,
            "source_type": source_type,
            "name": name_prefix,
        }
        page: JobPage = self._json("GET", "/jobs", params=params)
        return page

    def iter_jobs(self, *, statuses: Sequence[Status] = (), name_prefix: str | None = None) -> Iterator[Job]:
        """Yield all jobs, newest first, a page at a time. Jobs created meanwhile are left out."""
        cursor = None
        while True:
            page = self.list_jobs(limit=100, cursor=cursor, statuses=statuses, name_prefix=name_prefix)
            yield from page["jobs"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def cancel_job(self, job_id: str) -> Job:
        """Cancel a job. Cancelling again is fine; a job that ended otherwise is a ServerError (409)."""
        job: Job = self._json("PUT", f"/jobs/{_quoted(job_id)}/cancel")
        return job

    def rerun_job(self, job_id: str) -> Job:
        """Create a new job with the definition of this one."""
        job: Job = self._json("POST", f"/jobs/{_quoted(job_id)}/rerun")
        return job

    def delete_job(self, job_id: str) -> None:
        """Delete a job with its log and artifacts; one that is still active is cancelled first."""
        self._request("DELETE", f"/jobs/{_quoted(job_id)}").close()

    def log(self, job_id: str, tail: int | None = None) -> str:
        """Get what the job has printed so far, or only the last ``tail`` lines."""
        response = self._request("GET", f"/jobs/{_quoted(job_id)}/logs", params={"tail": tail})
        return response.content.decode("utf-8", errors="replace")

    def follow_log(self, job_id: str, silence_s: float | None = None) -> Iterator[bytes]:
        """Yield what the job prints, from the beginning, as it prints it, until it ends.

        A job may be silent for long: without ``silence_s`` there is no limit to that.
        """
        return self._stream(f"/jobs/{_quoted(job_id)}/logs", {"follow": "true"}, wait_s=silence_s)

    def list_artifacts(self, job_id: str) -> list[Artifact]:
        """List the files that the job left in its artifacts directory."""
        artifacts: list[Artifact] = self._json("GET", f"/jobs/{_quoted(job_id)}/artifacts")["artifacts"]
        return artifacts

    def read_artifact(self, job_id: str, path: str) -> Iterator[bytes]:
        """Yield the content of one artifact."""
        return self._stream(f"/jobs/{_quoted(job_id)}/artifacts/{quote(path)}", {}, wait_s=0)

    def _json(self, method: str, path: str, **options: Any) -> Any:
        response = self._request(method, path, **options)
        try:
            return response.json()
        except requests.JSONDecodeError as exc:
            raise _error_from(response) from exc

    def _stream(self, path: str, params: dict[str, str], wait_s: float | None) -> Iterator[bytes]:
        with self._request("GET", path, params=params, wait_s=wait_s, stream=True) as response:
            try:
                # None: chunks of whatever size, as soon as they arrive.
                yield from response.iter_content(chunk_size=None)
            except requests.RequestException as exc:
                raise self._network_error(exc) from exc

    def _request(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        body: JobDefinition | None = None,
        wait_s: float | None = 0,
        stream: bool = False,
    ) -> requests.Response:
        """Send a request whose answer may take ``wait_s`` longer than others, or forever (None)."""
        read_timeout_s = None if wait_s is None else self._timeout_s + wait_s
        try:
            response = self._session.request(
                method,
                f"{self._base_url}/api/v1{path}",
                params=params,
                json=body,
                timeout=(self._timeout_s, read_timeout_s),
                stream=stream,
            )
            if not response.ok:
                raise _error_from(response)
        except requests.RequestException as exc:
            raise self._network_error(exc) from exc
        return response

    def _network_error(self, exc: BaseException) -> NetworkError:
        # The innermost exception says it in plain words: "[Errno 111] Connection refused".
        while cause := exc.__cause__ or exc.__context__:
            exc = cause
        return NetworkError(f"no answer from {self._base_url}: {exc}")


class _BearerToken(requests.auth.AuthBase):
    """Sends the token. As a mere header it would lose against an entry in the user's .netrc."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _quoted(segment: str) -> str:
    return quote(segment, safe="")


def _error_from(response: requests.Response) -> ApiError:
    try:
        answer = response.json()
        body = ErrorBody(error=answer["error"], message=answer["message"], details=answer.get("details"))
    except (requests.JSONDecodeError, KeyError, TypeError):
        # A proxy, or something else altogether.
        body = ErrorBody(error="unknown", message="this is no answer of Reactorcide, is the URL right?")
    request_id = response.headers.get("X-Request-ID")
    kind = {400: InvalidRequestError, 401: AuthenticationError, 403: AuthenticationError}
    return kind.get(response.status_code, ServerError)(response.status_code, body, request_id)


# ---------------------------------------------------------------------------------------------------
# The program
# ---------------------------------------------------------------------------------------------------

EPILOG = """\
environment:
  REACTORCIDE_API_URL    where the service is (required, as http://127.0.0.1:8080)
  REACTORCIDE_API_TOKEN  the token to use (required)

exit codes:
  0    all fine
  1    a job failed
  2    wrong usage, no address or no token
  3    the service could not be reached
  4    the token was refused
  5    the job was refused as invalid
  6    a job took longer than --timeout
  7    any other error of the service
  130  interrupted
"""

# For each error: the exit code, and what to do about it.
FAILURES: dict[type[ReactorcideError], tuple[int, str]] = {
    NetworkError: (3, "start it with `reactorcide serve`, or correct REACTORCIDE_API_URL"),
    AuthenticationError: (
        4,
        "set REACTORCIDE_API_TOKEN to a valid token; `reactorcide token create` makes one",
    ),
    InvalidRequestError: (5, "correct what it names and try again"),
    WaitTimeoutError: (6, "give it longer with --timeout, or see whether a worker is free"),
    ServerError: (7, "the log of the service says more"),
}

# Runs the project's own ci.sh if it has one, as examples/sample-project does.
BUILD_COMMAND = """\
if [ -f ci.sh ]; then
    sh ci.sh
else
    echo "Hello from job $REACTORCIDE_JOB_ID"
    ls -la
    date >"$REACTORCIDE_ARTIFACTS_DIR/date.txt"
fi
"""

# A job that is cancelled gets SIGTERM first, and time to tidy up.
ENDLESS_COMMAND = """\
trap 'echo "Asked to stop: tidying up"; exit 143' TERM
echo "Waiting to be cancelled"
sleep 600 &
wait
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.git_ref and not options.git_url:
        parser.error("--git-ref needs --git-url")
    base_url = os.environ.get("REACTORCIDE_API_URL", "")
    if not base_url:
        # No default: whoever happened to listen there would get the token.
        return _fail(
            "no service: set REACTORCIDE_API_URL to where it is, as http://127.0.0.1:8080.", exit_code=2
        )
    token = os.environ.get("REACTORCIDE_API_TOKEN", "").strip()
    if not token:
        return _fail(
            "no token: set REACTORCIDE_API_TOKEN; "
            "`reactorcide serve` keeps the first one in the file admin-token of its data directory.",
            exit_code=2,
        )
    try:
        client = ReactorcideClient(base_url, token)
    except ValueError as exc:
        return _fail(f"{exc}.", exit_code=2)
    with client:
        try:
            return Tour(client, options).run()
        except ReactorcideError as exc:
            exit_code, advice = FAILURES[type(exc)]
            return _fail(f"{exc}; {advice}.", exit_code)
        except KeyboardInterrupt:
            return _fail("interrupted.", exit_code=130)


def _fail(sentence: str, exit_code: int) -> int:
    print(f"api_client: {sentence}", file=sys.stderr)
    return exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="api_client",
        description="A tour of the Reactorcide API: creates jobs, follows, cancels, lists and deletes them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--source",
        metavar="PATH",
        help="directory to copy, as the service sees it: below one of its source roots (default: none)",
    )
    parser.add_argument("--git-url", metavar="URL", help="create a job from this repository, too")
    parser.add_argument("--git-ref", metavar="REF", help="branch, tag or commit of it (default: its HEAD)")
    parser.add_argument("--image", help="container image of the jobs (default: the service's)")
    parser.add_argument(
        "--command",
        metavar="SCRIPT",
        default=BUILD_COMMAND,
        help="what the jobs run (default: sh ci.sh if there is one, else a greeting)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_positive_seconds,
        default=300,
        help="how long to wait for each job (default: 300)",
    )
    parser.add_argument("--keep", action="store_true", help="do not delete the jobs at the end")
    return parser


def _positive_seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) < math.inf:
            return seconds
    raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")


class Tour:
    """What the program does, step by step."""

    def __init__(self, client: ReactorcideClient, options: argparse.Namespace) -> None:
        self._client = client
        self._options = options
        self._created: list[Job] = []

    def run(self) -> int:
        """Return 0, or 1 if a job did not end as it should. The jobs are deleted after an error, too."""
        try:
            self._show_health()
            built = self._build()
            cancelled = self._cancel()
            self._show_latest()
        except BaseException:
            # The first error is the one to report.
            with contextlib.suppress(ReactorcideError):
                self._delete()
            raise
        self._delete()
        return 0 if built and cancelled else 1

    def _show_health(self) -> None:
        health = self._client.health()
        known = "recognised" if health["verification"]["verified"] else "not recognised"
        _say(f"Service: {health['status']}, version {health['version']}, token {known}")

    def _build(self) -> bool:
        """Create the jobs, then follow each to its end."""
        command, git_url = self._options.command, self._options.git_url
        copy: JobDefinition = {"name": "example-copy", "job_command": command, "source_type": "copy"}
        jobs = [self._create({**copy, "source_path": self._options.source})]
        if git_url:
            git: JobDefinition = {"name": "example-git", "job_command": command, "source_type": "git"}
            jobs.append(self._create({**git, "git_url": git_url, "git_ref": self._options.git_ref}))
        # A list, not a generator: all of them are followed, even when the first has failed.
        return all([self._follow(job["job_id"]) for job in jobs])

    def _follow(self, job_id: str) -> bool:
        started = time.monotonic()
        for job in self._client.watch_job(job_id, self._options.timeout):
            _say(f"  {time.monotonic() - started:6.1f} s  {job['name']}  {_outcome(job)}")
        _say(f"Log of {job['name']}:")
        _say(self._client.log(job_id).rstrip("\n"))
        self._show_artifacts(job)
        return _ended_as("completed", job)

    def _show_artifacts(self, job: Job) -> None:
        _say(f"Artifacts of {job['name']}:")
        for artifact in self._client.list_artifacts(job["job_id"]):
            sha256 = hashlib.sha256()
            for chunk in self._client.read_artifact(job["job_id"], artifact["path"]):
                sha256.update(chunk)
            verdict = "intact" if sha256.hexdigest() == artifact["sha256"] else "DAMAGED"
            _say(f"  {artifact['path']}  {artifact['size']} bytes, {verdict}")

    def _cancel(self) -> bool:
        """Create a job that would run for long, follow its log live, and cancel it."""
        job_id = self._create(
            {"name": "example-cancel", "job_command": ENDLESS_COMMAND, "source_type": "copy"}
        )["job_id"]
        for job in self._client.watch_job(job_id, self._options.timeout):
            if job["status"] == "running":
                break
        _say(f"Live log of {job['name']}:")
        for chunk in self._client.follow_log(job_id, silence_s=self._options.timeout):
            _say(chunk.decode("utf-8", errors="replace"), end="")
            # It has shown that it runs. What it prints while it stops cancels it again: that is harmless.
            self._client.cancel_job(job_id)
        job = self._client.get_job(job_id)
        _say(f"  {job['name']}  {_outcome(job)}")
        return _ended_as("cancelled", job)

    def _show_latest(self) -> None:
        page = self._client.list_jobs(limit=5)
        _say(f"Latest {len(page['jobs'])} of {page['total']} jobs:")
        for job in page["jobs"]:
            _say(f"  {job['job_id']}  {job['created_at']}  {job['status']:<9}  {job['name']}")

    def _create(self, definition: JobDefinition) -> Job:
        job = self._client.create_job({**definition, "runner_image": self._options.image})
        self._created.append(job)
        _say(f"Created {job['name']}: {job['job_id']}")
        return job

    def _delete(self) -> None:
        if self._options.keep:
            return
        for job in self._created:
            self._client.delete_job(job["job_id"])
            _say(f"Deleted {job['name']}: {job['job_id']}")


def _outcome(job: Job) -> str:
    if job["error"]:
        return f"{job['status']}: {job['error'].rstrip('.')}"
    if job["exit_code"] is not None:
        return f"{job['status']}, exit code {job['exit_code']}"
    return job["status"]


def _ended_as(status: Status, job: Job) -> bool:
    if job["status"] != status:
        _fail(f"{job['name']} {_outcome(job)}; its log above says more.", exit_code=1)
    return job["status"] == status


def _say(text: str, end: str = "\n") -> None:
    # At once, even into a pipe: this is a program to watch.
    print(text, end=end, flush=True)


if __name__ == "__main__":
    sys.exit(main())
