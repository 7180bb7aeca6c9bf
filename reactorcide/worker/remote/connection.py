"""The session of a worker on another machine: new attempts, cancels, and the leases of those it holds."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from typing import Any

from reactorcide.domain import assignments
from reactorcide.domain.errors import AttemptStale, ReactorcideError, SessionGone, Unauthorized
from reactorcide.domain.workers import Key, LeasedAttempt
from reactorcide.lib.clock import boot_id, boottime, now_ms
from reactorcide.lib.records import record
from reactorcide.threads import start_thread
from reactorcide.worker.port import Cancelled
from reactorcide.worker.remote.identity import WorkerFiles
from reactorcide.worker.remote.inputs import Inputs
from reactorcide.worker.remote.leases import Held, HeldAttempts
from reactorcide.worker.remote.transport import ServiceAway, Transport, interrupt

log = logging.getLogger("reactorcide.worker")

_HOLD_S = 50.0
"""Proxies mostly end what is silent for a minute."""
_OVER_S = 15.0
_FIRST_RETRY_S = 0.2
_MAX_RETRY_S = 5.0
_WATCH_EVERY_S = 1.0


@record
class Session:
    """What the service has answered at the beginning of the session."""

    session_id: str
    worker_id: str
    instance_id: str
    lease_s: float
    limits: Mapping[str, float]


class Connection:
    """One thread holds a call for the next attempts, another one watches how long the service is away.

    ``start_polling`` once; ``close`` is idempotent. All methods are thread-safe.
    """

    def __init__(
        self,
        transport: Transport,
        files: WorkerFiles,
        session: Session,
        given_up: Callable[[str], None],
        warm_containers: Callable[[], int] = lambda: 0,
    ) -> None:
        """``given_up`` is called, once, when another process works with this worker's secret."""
        self.session = session
        self.files = files
        self.held = HeldAttempts()
        self.admins: set[str] = set()
        """The users of attempts who are admins."""
        self._transport = transport
        self._given_up = given_up
        self._warm_containers = warm_containers
        self._wake: Callable[[], None] = lambda: None
        self._cancelled: Cancelled = lambda job_id, why="": None
        self._lock = threading.Lock()
        self._assigned: deque[LeasedAttempt] = deque()
        self._wants = False
        self._polled_free = 0
        self._told: tuple[str | None, bool] = (None, False)
        self._has_finished = False
        self._trouble: str | None = None
        self._polling: HTTPConnection | None = None
        self._is_closed = threading.Event()
        self._inputs: dict[Key, Inputs] = {}

    @property
    def label(self) -> str:
        """The label of this worker's containers; those of others on the same engine have another one."""
        return f"{self.session.instance_id}.{self.session.worker_id}"

    def listen(self, wake: Callable[[], None], cancelled: Cancelled) -> None:
        """See ``WorkerPort.listen``."""
        self._wake, self._cancelled = wake, cancelled
        start_thread(self._watch, "lost-watch")

    def start_polling(self) -> None:
        """Start asking for attempts."""
        start_thread(self._poll_loop, "next")

    def close(self) -> None:
        """Ask for no more attempts, and send no more logs."""
        self._is_closed.set()
        self._interrupt(lambda: True)
        for own in self.held.all():
            if own.shipper is not None:
                own.shipper.close()

    # --- calls ---------------------------------------------------------------------------------

    def of_attempt(
        self,
        own: Held,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes | None = None,
        *,
        timeout_s: float = 30.0,
    ) -> Any:
        """Return the answer to a call about an attempt; raises as ``Transport``."""
        with self._translated(own):
            return self._transport.call(
                method, _path(own, path), body, lease=own.leased.lease.token, timeout_s=max(1.0, timeout_s)
            )

    def send(self, own: Held, path: str, chunks: Iterable[bytes]) -> Any:
        """Send a body in pieces."""
        with self._translated(own):
            return self._transport.send("PUT", _path(own, path), chunks, lease=own.leased.lease.token)

    def stream(self, own: Held, path: str) -> Iterator[bytes]:
        """Yield the bytes of an answer."""
        return self._transport.stream(_path(own, path), lease=own.leased.lease.token)

    def inputs(self, own: Held) -> Inputs:
        """Return what the job of a run gets from it, asked for once."""
        known = self._inputs.get(own.leased.key)
        if known is None:
            known = self._inputs[own.leased.key] = Inputs(self.of_attempt(own, "GET", "inputs"))
        return known

    # --- attempts ------------------------------------------------------------------------------

    @property
    def next_assigned(self) -> LeasedAttempt | None:
        """The attempt to take next, if there is one."""
        return self._assigned[0] if self._assigned else None

    def take(self) -> LeasedAttempt | None:
        """Return a new attempt, which this worker begins now."""
        leased = self._assigned.popleft() if self._assigned else None
        if leased is not None and (own := self.held.get(leased.key)) is not None:
            own.is_taken = True
        return leased

    def want(self, wants: bool, trouble: str | None = None) -> None:
        """Say whether there is a place for another attempt, or why there cannot be one."""
        with self._lock:
            self._wants, self._trouble = wants, trouble
        # The call that is held says that there is no place.
        self._interrupt(lambda: wants and not self._polled_free and self._has_place())

    def take_no_more(self) -> None:
        """Have the service assign no further attempt; those that it has assigned by now can be taken."""
        with self._lock:
            self._wants, self._has_finished = False, True
        self._interrupt(lambda: bool(self._polled_free))
        # It ends the call that is held, whose answer may be lost.
        body = self._question(0) | {"wait": 0}
        sent_at = boottime()
        with self._translated():
            answer = self._transport.call(
                "POST",
                f"sessions/{self.session.session_id}/next",
                body,
                # The thread that calls this renews the leases, too.
                timeout_s=max(1.0, self.session.lease_s / 3),
            )
        self._hear(answer, sent_at)

    def unfinished(self) -> list[LeasedAttempt]:
        """Return this worker's attempts that have not ended, from the service."""
        with self._translated():
            answer = self._transport.call("GET", "attempts")
        return [self._leased(item) for item in answer["attempts"]]

    def adopt(self, key: Key) -> bool:
        """Hold an attempt of an earlier process; returns whether it is still this worker's."""
        if self.held.get(key) is not None:
            return True
        for leased in self.unfinished():
            if leased.key == key:
                sent_at = boottime()
                own = Held(leased, sent_at)
                try:
                    self.of_attempt(own, "POST", "renew")
                except AttemptStale:
                    return False
                own = self.held.add(leased, renewed_at=sent_at)
                own.is_taken = True
                self._keep(own)
                return True
        return False

    def renewed(self, own: Held, sent_at: float) -> None:
        """Record a successful renewal, also for the next start of this worker."""
        own.renewed_at = sent_at
        self._keep(own)

    def _keep(self, own: Held) -> None:
        job_id, attempt = own.leased.key
        self.files.save_attempt(
            own.leased.key,
            {
                "job_id": job_id,
                "attempt": attempt,
                "label": self.label,
                "lost_after": own.leased.lease.lost_after_s,
                "renewed_at": own.renewed_at,
                "boot_id": boot_id(),
            },
        )

    def update(self, own: Held, **changes: Any) -> None:
        """Record how far an attempt is."""
        own.leased = replace(own.leased, attempt=replace(own.leased.attempt, **changes))

    def cancel(self, own: Held) -> None:
        """Have the container of a cancelled job ended."""
        own.is_cancelled = True
        self._cancelled(own.leased.job.job_id)

    def stale(self, own: Held) -> None:
        """Have the container of an attempt ended that is this worker's no more."""
        if own.is_ending:
            # The call that reports the end hears of it itself.
            return
        if not own.is_stale:
            own.is_stale = True
            log.warning("the service has given up this attempt", extra={"job_id": own.leased.job.job_id})
        self._cancelled(own.leased.job.job_id, "the service has given up this attempt")

    def ended(self, own: Held) -> None:
        """Forget an attempt that has ended, with its log on this disk."""
        if own.shipper is not None:
            own.shipper.remove()
        self._inputs.pop(own.leased.key, None)
        self.held.remove(own.leased.key)
        self.files.forget_attempt(own.leased.key)

    def remove_leftovers(self) -> None:
        """Remove what is left of attempts that an earlier process had, and that are over."""
        self.files.keep_only({own.leased.key for own in self.held.all()})

    def _leased(self, data: Mapping[str, Any]) -> LeasedAttempt:
        try:
            leased = assignments.from_json(data, self.session.worker_id, now_ms=now_ms())
        except (LookupError, TypeError, ValueError, AttributeError) as exc:
            raise ServiceAway(
                f"the service's answer cannot be understood ({type(exc).__name__}: {exc}); it may be of "
                "another version"
            ) from exc
        if data.get("by_admin"):
            self.admins.add(leased.job.user_id)
        else:
            self.admins.discard(leased.job.user_id)
        return leased

    @contextmanager
    def _translated(self, own: Held | None = None) -> Iterator[None]:
        """Translate errors that the operator has to mend, and notice that an attempt is stale."""
        try:
            yield
        except Unauthorized as exc:
            raise ServiceAway(f"the service refuses this worker: {exc}") from exc
        except AttemptStale:
            if own is not None:
                self.stale(own)
            raise

    # --- the threads ---------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._is_closed.wait(_WATCH_EVERY_S):
            self.files.look()
            self._interrupt(lambda: self._told != self._tells())
            for own in self.held.overdue():
                log.warning("%s", _lost_because(own), extra={"job_id": own.leased.job.job_id})
                self._cancelled(own.leased.job.job_id, _lost_because(own))

    def _poll_loop(self) -> None:
        retry_s, problem = _FIRST_RETRY_S, ""
        while not self._is_closed.is_set():
            try:
                self._poll()
                if problem:
                    log.info("the service answers again")
                retry_s, problem = _FIRST_RETRY_S, ""
                continue
            except _Interrupted:
                continue
            except SessionGone as exc:
                self._given_up(str(exc))
                return
            except ReactorcideError as exc:
                if self._is_closed.is_set():
                    return
                if str(exc) != problem:
                    problem = str(exc)
                    log.warning("no jobs are taken: %s", exc)
            except Exception:
                log.exception("asking for jobs failed unexpectedly")
            self._is_closed.wait(retry_s)
            retry_s = min(2 * retry_s, _MAX_RETRY_S)

    def _poll(self) -> None:
        """Ask once for attempts and cancels, and pass them on."""
        with self._lock:
            free = int(self._has_place())
            self._polled_free, self._told = free, self._tells()
        body = self._question(free) | {"wait": _HOLD_S}
        sent_at = boottime()

        def opened(connection: HTTPConnection) -> None:
            with self._lock:
                self._polling = connection
                if self._says_less(free):
                    raise _Interrupted

        try:
            with self._translated():
                answer = self._transport.call(
                    "POST",
                    f"sessions/{self.session.session_id}/next",
                    body,
                    timeout_s=_HOLD_S + _OVER_S,
                    opened=opened,
                )
        except ServiceAway:
            with self._lock:
                was_interrupted = self._says_less(free) or (self._has_finished and free)
            if was_interrupted:
                raise _Interrupted from None
            raise
        finally:
            with self._lock:
                self._polling = None
        self._hear(answer, sent_at)

    def _interrupt(self, is_needed: Callable[[], bool]) -> None:
        """End the call that is held, if that is needed now."""
        with self._lock:
            polling = self._polling if is_needed() else None
        if polling is not None:
            interrupt(polling)

    def _has_place(self) -> bool:
        return self._wants and not self._assigned and self.files.problem is None

    def _says_less(self, free: int) -> bool:
        """Return whether the held call lacks a place that has become free, or the trouble of now."""
        return (self._has_place() and not free) or self._told != self._tells()

    def _tells(self) -> tuple[str | None, bool]:
        # A sentence with figures in it may be another one each time.
        return self.files.problem, self._trouble is not None

    def _question(self, free: int) -> dict[str, Any]:
        return {
            "free": free,
            "held": [
                {"job_id": own.leased.key[0], "attempt": own.leased.key[1], "cancelled": own.is_cancelled}
                for own in self.held.all()
            ],
            "warm_containers": self._warm_containers(),
            **({} if (trouble := self.files.problem or self._trouble) is None else {"trouble": trouble}),
        }

    def _hear(self, answer: Mapping[str, Any], sent_at: float) -> None:
        """Pass on the answer to a call for attempts."""
        for item in answer["assigned"]:
            leased = self._leased(item)
            if self.held.get(leased.key) is None:
                self._keep(self.held.add(leased, renewed_at=sent_at))
                self._assigned.append(leased)
        for item in answer["cancelled"]:
            own = self.held.get((item["job_id"], item["attempt"]))
            if own is not None:
                self.cancel(own)
        if answer["assigned"]:
            with self._lock:
                self._wants = False
            self._wake()


class _Interrupted(Exception):
    """The held call was ended, because there is a place now, or is none any more."""


def _lost_because(own: Held) -> str:
    seconds = f"{own.leased.lease.lost_after_s:g} s"
    return f"ended, because its worker did not reach the service for more than {seconds} (--lost-after)"


def _path(own: Held, path: str) -> str:
    job_id, attempt = own.leased.key
    return f"attempts/{job_id}/{attempt}/{path}"
