"""Comparing the attempts in the database with the containers on the engine."""

import logging
from collections.abc import Callable
from dataclasses import replace

from reactorcide.domain.errors import EngineBusy, InfrastructureError
from reactorcide.domain.jobs import OpenAttempt
from reactorcide.runner import ContainerInfo, Runner
from reactorcide.worker.background import Background
from reactorcide.worker.port import Unfinished, WorkerPort

log = logging.getLogger("reactorcide.worker")


class Recovery:
    """Adopts attempts that no worker runs, and removes containers that no attempt needs. For one thread.

    At the start these are from an earlier process; later, from failures in this one. Only the first list of
    containers is waited for, because an attempt is adopted with its container.
    """

    def __init__(
        self,
        port: WorkerPort,
        runner: Runner,
        background: Background,
        *,
        running: Callable[[], frozenset[tuple[str, int]]],
        adopt: Callable[[OpenAttempt], None],
    ) -> None:
        """``running`` returns the job's id and the number of each attempt that runs here."""
        self._port = port
        self._runner = runner
        self._background = background
        self._running = running
        self._adopt = adopt
        self._volumes_are_swept = False
        self._problem: InfrastructureError | None = None
        """Why the last listing of containers failed."""
        self.is_done = False
        """Whether it has succeeded once; before that, attempts of an earlier process may still run."""

    def run(self) -> None:
        """Compare once; raises ``InfrastructureError``."""
        # First, so that an attempt that ends meanwhile does not look like one that no worker runs.
        running = self._running()
        # Later, an attempt whose row has no container has run nothing: it needs none to be adopted.
        containers = (
            {}
            if self.is_done
            else {(info.job_id, info.attempt): info for info in self._containers() if info.service is None}
        )
        for attempt in self._port.unfinished().ours:
            key = (attempt.job.job_id, attempt.job.attempt)
            if key in running:
                continue
            container = containers.get(key)
            if attempt.container_id is None and container is not None:
                attempt = replace(attempt, container_id=container.container_id)
            if self._port.adopt(attempt):
                log.info("adopting a job that was left running", extra={"job_id": attempt.job.job_id})
                self._adopt(attempt)
        self.is_done = True
        self._port.adopted()
        self._background.add("remove containers that no job needs", self._sweep)
        if not self._volumes_are_swept:
            self._background.add("remove volumes that no container needs", self._sweep_volumes)
        if self._problem is not None:
            raise self._problem

    def _containers(self) -> list[ContainerInfo]:
        """Return the containers of attempts and of their services."""
        # Other containers with our labels are the user's own: an image committed from a job's container has
        # them, too.
        return [info for info in self._runner.list(self._port.instance_id) if info.is_named]

    def _sweep(self) -> None:
        """Remove containers that no attempt needs."""
        running = self._running()
        try:
            containers = self._containers()
            unused_warm = self._runner.unused_warm(self._port.instance_id)
        except InfrastructureError as exc:
            # A busy engine is not unreachable.
            self._problem = None if isinstance(exc, EngineBusy) else exc
            raise
        self._problem = None
        unfinished = self._port.unfinished()
        needed = running | _keys(unfinished)
        for info in containers:
            if (info.job_id, info.attempt) not in needed:
                self._background.remove(info.container_id, {"job_id": info.job_id})
        for container_id in unused_warm - unfinished.container_ids:
            self._background.remove(container_id, {})

    def _sweep_volumes(self) -> None:
        # The engine sometimes forgets to remove a volume with its container. Once per start is enough.
        self._runner.remove_stray_volumes(self._port.instance_id, lambda: _keys(self._port.unfinished()))
        self._volumes_are_swept = True


def _keys(unfinished: Unfinished) -> frozenset[tuple[str, int]]:
    """Return the attempts whose containers and volumes are or will be needed.

    Call it after listing the engine's containers, which are younger than their attempts' rows.
    """
    return unfinished.of_others.union((item.job.job_id, item.job.attempt) for item in unfinished.ours)
