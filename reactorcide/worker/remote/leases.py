"""The attempts that a worker on another machine holds."""

import threading
from dataclasses import dataclass

from reactorcide.domain.jobs import Job
from reactorcide.domain.workers import Key, LeasedAttempt
from reactorcide.lib.clock import boottime
from reactorcide.worker.remote.shipper import Shipper


def key_of(job: Job) -> Key:
    """Return the id of a job and the number of its attempt."""
    return job.job_id, job.attempt


@dataclass(eq=False)
class Held:
    """An attempt that this worker holds."""

    leased: LeasedAttempt
    renewed_at: float
    """When the last successful renewal was sent, by ``boottime``."""
    is_taken: bool = False
    """It is run or adopted here; before that nothing of it runs, and the service gives it back by itself."""
    is_cancelled: bool = False
    is_stale: bool = False
    """The service has given it up: nothing more is to be reported."""
    is_ending: bool = False
    """Its end is being reported: a renewal on its way may come after that."""
    is_lost: bool = False
    """This worker was cut off for too long, and has ended it."""
    shipper: Shipper | None = None


class HeldAttempts:
    """The held attempts by their keys. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Key, Held] = {}

    def add(self, leased: LeasedAttempt, *, renewed_at: float) -> Held:
        """Hold an attempt; one that is held already stays, with the lease that it has now."""
        with self._lock:
            held = self._held.get(leased.key)
            if held is None:
                held = Held(leased, renewed_at, is_cancelled=False)
                self._held[leased.key] = held
            else:
                held.leased = leased
            return held

    def get(self, key: Key) -> Held | None:
        """Return a held attempt."""
        with self._lock:
            return self._held.get(key)

    def remove(self, key: Key) -> Held | None:
        """Hold an attempt no more."""
        with self._lock:
            return self._held.pop(key, None)

    def all(self) -> list[Held]:
        """Return all of them."""
        with self._lock:
            return list(self._held.values())

    def overdue(self) -> list[Held]:
        """Mark and return the attempts that this worker must end, because it was cut off for too long."""
        now = boottime()
        found = []
        with self._lock:
            for held in self._held.values():
                if not held.is_taken or held.is_lost:
                    continue
                if now - held.renewed_at > held.leased.lease.lost_after_s:
                    held.is_lost = True
                    found.append(held)
        return found
