"""One user's view of a running service, over HTTP."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from tests.support.contract import check_answer

Job = dict[str, Any]

FINAL = ("completed", "failed", "cancelled")
_TIMEOUT_S = 70


class _From(HTTPAdapter):
    """Connects from an address of this host."""

    def __init__(self, source: str) -> None:
        self._source = source
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, source_address=(self._source, 0), **options)


class Client:
    """Sends requests with one token; ``base_url`` may change when the service starts anew.

    ``certificate`` is a file with the one that is trusted over TLS, ``source`` the address to connect from.
    """

    def __init__(
        self, base_url: str, token: str | None, certificate: object = None, source: str | None = None
    ) -> None:
        self.base_url = base_url
        self.token = token
        self._session = requests.Session()
        if source is not None:
            self._session.mount("http://", _From(source))
        # No proxy and no netrc of this host plays a part.
        self._session.trust_env = False
        self._session.verify = True if certificate is None else str(certificate)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request to ``path``, below ``/api/v1`` unless it begins with a slash."""
        address = path if path.startswith("/") else f"/api/v1/{path}"
        headers = dict(options.pop("headers", None) or {})
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        response = self._session.request(
            method, self.base_url + address, headers=headers, timeout=_TIMEOUT_S, **options
        )
        check_answer(method, response)
        return response

    def get(self, path: str, **params: Any) -> Any:
        """Return what a GET answers as JSON; it must be a 200."""
        response = self.request("GET", path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    def post_job(self, **fields: Any) -> requests.Response:
        """Send a job with the required fields filled in; ``None`` leaves one of them out."""
        job = {"name": "test", "job_command": "true", "source_type": "copy"} | fields
        return self.request("POST", "jobs", json={name: job[name] for name in job if job[name] is not None})

    def submit(self, job_command: str = "true", **fields: Any) -> Job:
        """Submit a job and return it; it must be accepted."""
        response = self.post_job(job_command=job_command, **fields)
        assert response.status_code == 201, response.text
        job: Job = response.json()
        return job

    def run(self, job_command: str = "true", **fields: Any) -> Job:
        """Submit a job and return it when it has ended."""
        return self.wait(self.submit(job_command, **fields))

    def job(self, job: Job, **params: Any) -> Job:
        """Return the job as it is now."""
        answer: Job = self.get(f"jobs/{job['job_id']}", **params)
        return answer

    def wait(self, job: Job, *statuses: str, deadline_s: float = 30) -> Job:
        """Return the job once it has ended, or has one of ``statuses``."""
        deadline = time.monotonic() + deadline_s
        # The first question does not wait: a long poll answers only to a change that comes while it waits.
        latest = self.job(job)
        while latest["status"] not in (statuses or FINAL):
            remaining_s = deadline - time.monotonic()
            assert remaining_s > 0, f"not {statuses or 'over'} within {deadline_s:g} s: {latest}"
            assert latest["status"] not in FINAL, f"over without having been {statuses}: {latest}"
            # Short, because a status that is passed through between two polls would be waited for in vain.
            latest = self.job(job, wait=min(remaining_s, 1))
        return latest

    def log(self, job: Job, **params: Any) -> bytes:
        """Return the job's log."""
        response = self.request("GET", f"jobs/{job['job_id']}/logs", params=params)
        assert response.status_code == 200, response.text
        return response.content

    @contextmanager
    def follow(self, job: Job, **params: Any) -> Iterator[Iterator[bytes]]:
        """Yield the lines of the job's log as they come."""
        path = f"jobs/{job['job_id']}/logs"
        with self.request("GET", path, params={"follow": "true"} | params, stream=True) as response:
            assert response.status_code == 200, response.text
            yield response.iter_lines(chunk_size=None)

    def cancel(self, job: Job) -> Job:
        """Cancel the job; that must be possible."""
        response = self.request("PUT", f"jobs/{job['job_id']}/cancel")
        assert response.status_code == 200, response.text
        cancelled: Job = response.json()
        return cancelled

    def artifacts(self, job: Job) -> list[dict[str, Any]]:
        """Return the listing of the job's artifacts."""
        listing: list[dict[str, Any]] = self.get(f"jobs/{job['job_id']}/artifacts")["artifacts"]
        return listing

    def artifact_paths(self, job: Job) -> list[str]:
        """Return the paths of the job's artifacts."""
        return [item["path"] for item in self.artifacts(job)]
