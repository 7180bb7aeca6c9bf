"""What the clients do with the answers of a server, which are hostile input."""

import logging

from reactorcide.corndogs.task import DEFAULT_QUEUE, Task
from reactorcide.domain.errors import CorndogsError
from reactorcide.lib.ids import is_id

_log = logging.getLogger("reactorcide.corndogs")

_MAX_LOGGED = 1000

# A slow server carries a call out after its client has given up, which leaves a claimed task without a
# holder. So these calls, for which no request to the API waits, have longer deadlines.
DEADLINE_FACTORS = {"GetNextTask": 3, "UpdateTask": 3}


class ErrorLog:
    """Logs a server's error texts, which are for the operator alone."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._last = ""

    def log(self, problem: str) -> None:
        """Log the text, unless it is the same as last time."""
        if self._last != problem:
            self._last = problem
            _log.warning("Corndogs at %s: %s", self._address, problem[:_MAX_LOGGED])


def requested(rpc: str, task: Task, uuid: str | None = None, queue: str | None = None) -> Task:
    """Return the task of an answer; raises ``CorndogsError`` if it is not the requested one."""
    is_requested = is_id(task.uuid) if uuid is None else task.uuid == uuid
    if is_requested and (queue is None or task.queue == (queue or DEFAULT_QUEUE)):
        return task
    raise CorndogsError(f"Corndogs answered {rpc} with a task that was not requested")
