"""``WorkerPort`` over HTTP."""

import json
import logging
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from time import monotonic
from typing import Any
from urllib.parse import quote

from reactorcide.domain.artifacts import Artifact
from reactorcide.domain.caches import CacheAnswer, CacheSpec, Check, ExpectedCache, FoundCache, key_digest
from reactorcide.domain.errors import (
    AttemptStale,
    IllegalTransition,
    InfrastructureError,
    LogConflict,
    NotFound,
)
from reactorcide.domain.git_access import GitAccess
from reactorcide.domain.jobs import Job, OpenAttempt, Outcome, artifacts_prefix
from reactorcide.domain.reports import JobReport
from reactorcide.domain.runs import RunFiles
from reactorcide.domain.secrets import secrets_of
from reactorcide.lib.clock import boottime, now_ms
from reactorcide.lib.tar import DamagedTar, Entry, read_tar
from reactorcide.logs.writer import LogWriter
from reactorcide.worker.port import Cancelled, Unfinished
from reactorcide.worker.port import Held as Renewal
from reactorcide.worker.remote.connection import Connection
from reactorcide.worker.remote.inputs import Inputs, outputs_json
from reactorcide.worker.remote.leases import Held, key_of
from reactorcide.worker.remote.shipper import Shipper
from reactorcide.worker.remote.transport import REFUSALS, ServiceAway

log = logging.getLogger("reactorcide.worker")

_CHECK_EVERY_S = 10.0
"""While nothing happens: whether a job could run."""


class RemotePort:
    """See ``WorkerPort``; each call is a request to the service."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._checked_at = float("-inf")
        self._has_adopted = False

    @property
    def worker_id(self) -> str:
        """See ``WorkerPort.worker_id``."""
        return self._connection.session.worker_id

    @property
    def instance_id(self) -> str:
        """See ``WorkerPort.instance_id``; containers of other workers on the same engine have another one."""
        return self._connection.label

    @property
    def lease_s(self) -> float:
        """See ``WorkerPort.lease_s``."""
        return self._connection.session.lease_s

    def is_admin(self, user_id: str) -> bool:
        """Return whether the user of a held attempt is an admin."""
        return user_id in self._connection.admins

    def listen(self, wake: Callable[[], None], cancelled: Cancelled) -> None:
        """See ``WorkerPort.listen``."""
        self._connection.listen(wake, cancelled)

    def close(self) -> None:
        """See ``WorkerPort.close``."""
        self._connection.close()

    # --- which attempts are this worker's ------------------------------------------------------

    def claim(self, queues: Sequence[str], check_ready: Callable[[], None]) -> Generator[Job, None, None]:
        """See ``WorkerPort.claim``; ``queues`` were named when the session began."""
        connection = self._connection
        try:
            while True:
                if connection.next_assigned is not None or monotonic() - self._checked_at > _CHECK_EVERY_S:
                    self._checked_at = float("-inf")
                    check_ready()
                    self._checked_at = monotonic()
                leased = connection.take()
                if leased is None:
                    # The connection wakes the worker when there is one.
                    connection.want(True)
                    return
                connection.want(False)
                yield leased.job
        except InfrastructureError as exc:
            connection.want(False, str(exc))
            self._give_back(f"its worker could not run it: {exc}")
            raise
        except GeneratorExit:
            connection.want(False)
            raise

    def claim_no_more(self) -> None:
        """See ``WorkerPort.claim_no_more``."""
        self._connection.take_no_more()
        self._give_back("its worker was about to stop")

    def _give_back(self, reason: str) -> None:
        """Give back the attempts that nothing has begun; one that cannot be given back yet stays."""
        while (leased := self._connection.next_assigned) is not None:
            self.try_again(leased.job, reason, delay_s=0)
            self._connection.take()

    def renew(self, held: Collection[Renewal]) -> None:
        """See ``WorkerPort.renew``."""
        problem: ServiceAway | None = None
        for item in held:
            own = self._held(item.job)
            if own is None or own.is_stale:
                continue
            sent_at = boottime()
            try:
                answer = self._connection.of_attempt(own, "POST", "renew", timeout_s=self.lease_s / 3)
            except AttemptStale:
                continue
            except ServiceAway as exc:
                problem = exc
                break
            else:
                self._connection.renewed(own, sent_at)
                if answer["cancelled"]:
                    self._connection.cancel(own)
        if problem is not None:
            raise problem

    def is_cancelled(self, job: Job) -> bool:
        """See ``WorkerPort.is_cancelled``."""
        own = self._held(job)
        return own is not None and (own.is_cancelled or own.is_stale or own.is_lost)

    def unfinished(self) -> Unfinished:
        """See ``WorkerPort.unfinished``.

        An attempt that this process has not taken is on its way to it, unless an earlier process had it.
        """
        found = self._connection.unfinished()
        if self._has_adopted:
            taken = {own.leased.key for own in self._connection.held.all() if own.is_taken}
            found = [item for item in found if item.key in taken]
        container_ids = {item.attempt.container_id for item in found if item.attempt.container_id is not None}
        return Unfinished([item.attempt for item in found], frozenset(), frozenset(container_ids))

    def adopt(self, attempt: OpenAttempt) -> bool:
        """See ``WorkerPort.adopt``."""
        return self._connection.adopt(key_of(attempt.job))

    def adopted(self) -> None:
        """See ``WorkerPort.adopted``; only now new attempts can be told from old ones."""
        if not self._has_adopted:
            self._has_adopted = True
            self._connection.remove_leftovers()
            self._connection.start_polling()

    # --- what happens to an attempt ------------------------------------------------------------

    def source(self, job: Job) -> Iterator[Entry] | None:
        """See ``WorkerPort.source``."""
        if job.definition.source_id is None and job.definition.source_job_id is None:
            return None
        return self._tar(job, "source", "the source")

    def is_trusted(self, job: Job) -> bool:
        """See ``WorkerPort.is_trusted``."""
        return job.run_id is None or self._inputs(job).is_trusted

    def git_access(self, job: Job) -> GitAccess | None:
        """See ``WorkerPort.git_access``."""
        if job.run_id is None:
            return None
        return self._inputs(job).git_access(lambda lines: self._learned(job, lines))

    def run_files(self, job: Job) -> RunFiles | None:
        """See ``WorkerPort.run_files``."""
        if job.run_id is None:
            return None
        inputs = self._inputs(job)
        return inputs.run_files(lambda: self._tar(job, "needs", "the artifacts of the jobs before it"))

    def caches(self, job: Job) -> tuple[CacheSpec, ...]:
        """See ``WorkerPort.caches``."""
        return () if job.run_id is None else self._inputs(job).caches

    def find_cache(self, job: Job, spec: CacheSpec, key: str, check: Check) -> CacheAnswer:
        """See ``WorkerPort.find_cache``."""
        check()
        number = self._inputs(job).caches.index(spec)
        answer = self._call(job, "POST", "cache-lookups", {"number": number, "key": key})
        damaged, cache = tuple(answer["damaged"]), answer["cache"]
        if cache is None:
            return CacheAnswer(None, damaged)
        chunks = self._connection.stream(self._required(job), f"caches/{quote(cache['cache_id'])}")
        return CacheAnswer(FoundCache(cache["cache_id"], cache["key"], cache["size"], chunks), damaged)

    def drop_cache(self, job: Job, cache_id: str) -> None:
        """See ``WorkerPort.drop_cache``."""
        self._call(job, "DELETE", f"caches/{quote(cache_id)}")

    def expect_caches(self, job: Job, expected: Sequence[ExpectedCache]) -> bool:
        """See ``WorkerPort.expect_caches``."""
        items = [{"key": item.key, "paths": list(item.paths)} for item in expected]
        return bool(self._call(job, "PUT", "expected-caches", {"caches": items})["may_save"])

    def expected_caches(self, job: Job) -> list[ExpectedCache]:
        """See ``WorkerPort.expected_caches``."""
        if job.run_id is None:
            return []
        answer = self._call(job, "GET", "expected-caches")
        return [ExpectedCache(item["key"], tuple(item["paths"])) for item in answer["caches"]]

    def put_cache(
        self, job: Job, item: ExpectedCache, chunks: Iterable[bytes], *, max_bytes: int
    ) -> int | None:
        """See ``WorkerPort.put_cache``; the limit is the service's own."""
        answer = self._send(job, f"caches?key_sha256={key_digest(item.key)}", chunks)
        return None if answer["size"] is None else int(answer["size"])

    def image_pulled(self, image: str, image_id: str) -> None:
        """See ``WorkerPort.image_pulled``: the service removes no images of other machines."""

    def open_log(self, job: Job, *, max_bytes: int) -> LogWriter:
        """See ``WorkerPort.open_log``."""
        own = self._required(job)
        if own.shipper is not None:
            own.shipper.release()

        def put(path: str, data: bytes) -> Any:
            return self._connection.of_attempt(own, "PUT", path, data)

        shipper = Shipper(self._connection.files, *own.leased.key, put)
        writer = LogWriter(
            shipper.spool,
            shipper,
            job.job_id,
            job.attempt,
            secrets=secrets_of(job.definition),
            max_bytes=max_bytes,
        )
        own.shipper = shipper
        shipper.begin()
        return writer

    def handing_over(
        self, job: Job, container_id: str, *, container_started_at: str, at_ms: int, log_offset: int
    ) -> None:
        """See ``WorkerPort.handing_over``."""
        body = {
            "container_id": container_id,
            "container_started_at": container_started_at,
            "log_offset": log_offset,
            "age_ms": max(0, now_ms() - at_ms),
        }
        own = self._required(job)
        if own.is_lost:
            raise IllegalTransition("this worker was cut off for too long, so the command is not run")
        try:
            self._connection.of_attempt(own, "POST", "handing-over", body)
        except AttemptStale as exc:
            raise IllegalTransition(str(exc)) from exc
        self._connection.update(
            own,
            container_id=container_id,
            container_started_at=container_started_at,
            log_offset=log_offset,
            handing_over_at_ms=at_ms,
        )

    def started(self, job: Job, *, at_ms: int) -> None:
        """See ``WorkerPort.started``."""
        own = self._required(job)
        self._connection.update(own, started_at_ms=at_ms)
        if not own.is_stale:
            with suppress(AttemptStale):
                self._connection.of_attempt(own, "POST", "started", {"age_ms": max(0, now_ms() - at_ms)})

    def put_artifact(self, job: Job, path: str, chunks: Iterable[bytes]) -> int:
        """See ``WorkerPort.put_artifact``."""
        answer = self._send(job, f"artifacts/{quote(path)}", chunks)
        return int(answer["size"])

    def copy_artifact(self, job: Job, path: str, new_path: str) -> None:
        """See ``WorkerPort.copy_artifact``."""
        self._call(job, "POST", "artifact-copies", {"path": path, "new_path": new_path})

    def drop_artifacts(self, job: Job) -> None:
        """See ``WorkerPort.drop_artifacts``."""
        self._call(job, "DELETE", "artifacts")

    def put_report(self, job: Job, report: JobReport) -> None:
        """See ``WorkerPort.put_report``."""
        self._send_json(job, "report", asdict(report))

    def put_service_log(self, job: Job, service: str, data: bytes) -> None:
        """See ``WorkerPort.put_service_log``."""
        self._send(job, f"services/{quote(service)}/log", [data])

    def list_artifacts(self, job: Job, artifacts: Sequence[Artifact], *, truncated: bool) -> str:
        """See ``WorkerPort.list_artifacts``."""
        listing = {"artifacts": [asdict(item) for item in artifacts], "truncated": truncated}
        self._send_json(job, "listing", listing)
        return artifacts_prefix(job.job_id, job.attempt)

    def finish(self, job: Job, outcome: Outcome, *, log_truncated: bool) -> None:
        """See ``WorkerPort.finish``."""
        body = {
            "exit_code": outcome.exit_code,
            "error": outcome.error,
            "has_artifacts": outcome.artifacts_object_key is not None,
            "outputs": outputs_json(outcome),
            "log_truncated": log_truncated,
        }
        self._end(job, "finish", body)

    def try_again(
        self,
        job: Job,
        reason: str,
        *,
        delay_s: float,
        exit_code: int | None = None,
        log_truncated: bool = False,
        **counters: int,
    ) -> None:
        """See ``WorkerPort.try_again``."""
        body = {"reason": reason, "delay": delay_s, "exit_code": exit_code}
        self._end(job, "try-again", body | {"log_truncated": log_truncated, **counters})

    def _end(self, job: Job, path: str, body: dict[str, Any]) -> None:
        """Report the end of an attempt, after all of its log; of one that was given up there is nothing."""
        own = self._held(job)
        if own is None:
            return
        own.is_ending = True
        try:
            if not own.is_stale:
                log_bytes, index_bytes = (0, 0) if own.shipper is None else own.shipper.flush()
                body = body | {"log_bytes": log_bytes, "index_bytes": index_bytes}
                body["log_truncated"] |= own.shipper is not None and own.shipper.is_full
                self._connection.of_attempt(own, "POST", path, body)
        except AttemptStale as exc:
            log.warning("%s", exc, extra={"job_id": job.job_id})
        except LogConflict as exc:
            if own.shipper is not None:
                own.shipper.resend(exc)
            raise ServiceAway(f"the service has lost a part of the log, which is sent again: {exc}") from exc
        self._connection.ended(own)

    def _held(self, job: Job) -> Held | None:
        return self._connection.held.get(key_of(job))

    def _required(self, job: Job) -> Held:
        own = self._held(job)
        if own is None:
            raise AttemptStale(f"attempt {job.attempt} of job {job.job_id} is not held any more")
        return own

    def _call(self, job: Job, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            return self._connection.of_attempt(self._required(job), method, path, body)
        except (AttemptStale, NotFound) as exc:
            # The attempt is told to end, or what it needs has gone meanwhile.
            raise ServiceAway(str(exc)) from exc

    def _send(self, job: Job, path: str, chunks: Iterable[bytes]) -> Any:
        try:
            return self._connection.send(self._required(job), path, chunks)
        except AttemptStale as exc:
            raise ServiceAway(str(exc)) from exc

    def _send_json(self, job: Job, path: str, content: Any) -> None:
        try:
            self._send(job, path, [json.dumps(content).encode()])
        except REFUSALS as exc:
            raise ServiceAway(f"the service does not take the job's {path}: {exc}") from exc

    def _inputs(self, job: Job) -> Inputs:
        return self._connection.inputs(self._required(job))

    def _learned(self, job: Job, lines: str) -> None:
        self._call(job, "POST", "known-hosts", {"lines": lines})

    def _tar(self, job: Job, path: str, what: str) -> Iterator[Entry]:
        chunks = self._connection.stream(self._required(job), path)
        try:
            yield from read_tar(chunks)
            # Only the end of the answer shows that it is complete.
            for _ in chunks:
                pass
        except DamagedTar as exc:
            raise ServiceAway(f"{what} did not arrive whole: {exc}") from exc
