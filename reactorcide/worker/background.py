"""Slow maintenance of the engine, in a thread beside the worker."""

import logging
from collections.abc import Mapping

from reactorcide import crashpoints, threads
from reactorcide.runner import Runner

log = logging.getLogger("reactorcide.worker")


class Background(threads.Background):
    """Runs maintenance of the engine: it may take minutes to remove a container, for which no job waits.

    The worker's sweep adds again what has failed.
    """

    def __init__(self, runner: Runner) -> None:
        super().__init__(
            "background",
            log,
            unfinished="a container is still being removed; the next start goes on with it",
        )
        self._runner = runner

    def remove(self, container_id: str, log_fields: Mapping[str, object]) -> None:
        """Remove a container later."""

        def remove() -> None:
            self._runner.remove(container_id)
            crashpoints.reached("container-removed")

        self.add(f"remove container {container_id}", remove, log_fields)
