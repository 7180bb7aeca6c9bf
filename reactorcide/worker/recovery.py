"""Comparing the attempts in the database with the containers on the engine."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from reactorcide.domain.errors import InfrastructureError, JobFailed
from reactorcide.domain.jobs import OpenAttempt
from reactorcide.runner import ContainerInfo, Runner
from reactorcide.worker.port import WorkerPort

log = logging.getLogger("reactorcide.worker")


class Recovery:
    """Adopts attempts that nobody runs, and removes containers that no attempt needs. For one thread.

    At the start that is what an earlier process left; later, what went wrong in this one.
    """

    def __init__(
        self,
        port: WorkerPort,
        runner: Runner,
        *,
        running: Callable[[], frozenset[tuple[str, int]]],
        adopt: Callable[[OpenAttempt], None],
        is_stopping: Callable[[], bool],
    ) -> None:
        """``running`` returns the job's id and the number of each attempt that runs here."""
        self._port = port
        self._runner = runner
        self._running = running
        self._adopt = adopt
        self._is_stopping = is_stopping
        self._removal: threading.Thread | None = None
        self.is_done = False
        """Whether it has succeeded once: before, what an earlier process left may still run."""

    def run(self) -> None:
        """Compare once; raises ``InfrastructureError``."""
        # First, so that an attempt that ends meanwhile is not taken for one that nobody runs.
        running = self._running()
        # Others with our labels are somebody's own: an image that was made of a job's container has them,
        # too.
        containers = {
            (info.job_id, info.attempt): info
            for info in self._runner.list(self._port.instance_id)
            if info.is_named
        }
        # After the engine was asked: of whatever has a container now, the attempt is there.
        unfinished = self._port.unfinished()
        for left in unfinished.ours:
            key = (left.job.job_id, left.job.attempt)
            if key in running:
                continue
            container = containers.pop(key, None)
            if left.container_id is None and container is not None:
                left = replace(left, container_id=container.container_id)
            if self._port.adopt(left):
                log.info("adopting a job that was left running", extra={"job_id": left.job.job_id})
                self._adopt(left)
        needed = running | unfinished.of_others
        self._remove_orphans([orphan for key, orphan in containers.items() if key not in needed])
        if not self.is_done:
            # The engine now and then forgets to take one along with its container. Once is enough.
            self._runner.remove_stray_volumes(self._port.instance_id)
        self.is_done = True

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for a removal that is under way."""
        if self._removal is not None:
            self._removal.join(timeout_s)
            if self._removal.is_alive():
                log.warning("a container is still being removed; the next start goes on with it")

    def _remove_orphans(self, orphans: Sequence[ContainerInfo]) -> None:
        """Remove containers that no job needs, in a thread of its own: the engine may hang over one."""

        def remove() -> None:
            for orphan in orphans:
                if self._is_stopping():
                    return
                log.info("removing a container that no job needs", extra={"job_id": orphan.job_id})
                try:
                    self._runner.remove(orphan.container_id)
                except (InfrastructureError, JobFailed) as exc:
                    log.warning("it is still there: %s", exc, extra={"job_id": orphan.job_id})

        if orphans and (self._removal is None or not self._removal.is_alive()):
            self._removal = threading.Thread(target=remove, name="orphans", daemon=True)
            self._removal.start()
