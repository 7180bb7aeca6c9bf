"""The janitor: removes expired jobs, images and sources, in a thread beside the worker."""

import logging
import threading
from collections.abc import Callable

from reactorcide.deliveries import receive
from reactorcide.deliveries.retention import remove_old
from reactorcide.domain import audit
from reactorcide.duties import Duties, Duty
from reactorcide.jobs import JobContext, caches, images, retention, sources
from reactorcide.jobs.delete import purge_ended
from reactorcide.jobs.leftovers import remove_leftovers
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import first_id
from reactorcide.runner import Runner
from reactorcide.threads import start_thread

log = logging.getLogger("reactorcide.janitor")

_PURGE_EVERY_S = 5.0
_ROUND_EVERY_S = 300.0
_DAY_S = retention.DAY_MS / 1000
_MAX_PUT_MS = retention.DAY_MS
"""Longer than storing any object takes."""


class Janitor:
    """Removes in a thread of its own, so that no claim waits for a large removal.

    ``start`` once; ``stop`` is idempotent. Its work is recorded in the database, so that it continues after a
    restart.
    """

    def __init__(
        self,
        context: JobContext,
        runner: Runner,
        policy: retention.Policy,
        *,
        keep_image_days: int = 0,
        keep_source_days: int = 0,
        max_cache_bytes: int = 0,
        engine: Callable[[], str] = lambda: "",
    ) -> None:
        """``engine`` returns what tells this service's engine from those of others on the database."""
        self._engine = engine
        self._context = context
        self._runner = runner
        self._policy = policy
        self._keep_image_days = keep_image_days
        self._keep_source_days = keep_source_days
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        # Further periodic removals are added here.
        self._duties = Duties(
            [
                Duty("purge deleted jobs", _PURGE_EVERY_S, lambda: purge_ended(context), _PURGE_EVERY_S),
                Duty("seal logs", _ROUND_EVERY_S, context.sealing.left_over, _ROUND_EVERY_S),
                Duty(
                    "remove incomplete objects",
                    _ROUND_EVERY_S,
                    lambda: context.objects.remove_leftovers(_MAX_PUT_MS / 1000),
                    _ROUND_EVERY_S,
                ),
                Duty("remove objects without a row", _DAY_S, self._remove_orphans, _ROUND_EVERY_S),
                Duty("remove jobs", _ROUND_EVERY_S, self._remove_jobs, _ROUND_EVERY_S),
                Duty(
                    "remove runs of removed projects",
                    _ROUND_EVERY_S,
                    lambda: remove_leftovers(context),
                    _ROUND_EVERY_S,
                ),
                Duty("remove images", _ROUND_EVERY_S, self._remove_images, _ROUND_EVERY_S),
                Duty("remove sources", _ROUND_EVERY_S, self._remove_sources, _ROUND_EVERY_S),
                Duty("remove deliveries", _ROUND_EVERY_S, lambda: remove_old(context), _ROUND_EVERY_S),
                Duty(
                    "remove caches",
                    _ROUND_EVERY_S,
                    lambda: caches.trim(context, max_bytes=max_cache_bytes),
                    _ROUND_EVERY_S,
                ),
            ],
            log,
        )

    def start(self) -> None:
        """Start the first round at once."""
        self._thread = start_thread(self._loop, "janitor")

    def stop(self, deadline_s: float) -> None:
        """Stop after the current removal, or after ``deadline_s``."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(deadline_s)
            if self._thread.is_alive():
                log.warning("a removal is still running; the next start continues it")

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._duties.do_due()
            self._stopping.wait(_PURGE_EVERY_S)

    def _remove_orphans(self) -> None:
        remove_orphans(self._context, before_id=first_id(now_ms() - _MAX_PUT_MS))

    def _remove_jobs(self) -> None:
        retention.apply(self._context, self._policy, by=audit.service(), stopping=self._stopping.is_set)

    def _remove_images(self) -> None:
        """Remove pulled images that no job has used for long."""
        if not self._keep_image_days:
            return
        since_ms = now_ms() - self._keep_image_days * retention.DAY_MS
        remove = self._runner.remove_image
        for image in images.remove_unused(self._context, remove, since_ms=since_ms, engine=self._engine()):
            log.info("image %s is removed: unused for %d days", image.image, self._keep_image_days)

    def _remove_sources(self) -> None:
        """Remove uploaded sources that no job has used for long."""
        if not self._keep_source_days:
            return
        before_ms = now_ms() - self._keep_source_days * retention.DAY_MS
        for source in sources.remove_unused(self._context, before_ms=before_ms):
            log.info("source %s is removed: unused for %d days", source.source_id, self._keep_source_days)


def remove_orphans(context: JobContext, *, before_id: str | None = None) -> None:
    """Remove objects whose rows are gone, and rows of caches whose objects are; call it before any is stored.

    With ``before_id``, which is of a time when none that is being stored had begun, it may be called at any
    time.
    """
    sources.remove_orphans(context, before_id=before_id)
    caches.remove_orphans(context, before_id=before_id)
    receive.remove_orphans(context, before_id=before_id)
