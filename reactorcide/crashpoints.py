"""Places at which a test has the process killed, to show that nothing is lost there.

Each lies on a boundary between the database, Corndogs, the engine and the object store. In production the
variable is not set, and passing a point costs one look at the environment.
"""

import os
import signal
from pathlib import Path

VARIABLE = "REACTORCIDE_CRASH_AT"
"""``POINT=FILE``: die at that point, once, if the file is there; it is removed first."""

POINTS = (
    "submit-committed",
    "submit-task-made",
    "claim-task-taken",
    "claim-row-written",
    "container-created",
    "source-put",
    "container-started",
    "handing-over-written",
    "hand-over-half-sent",
    "hand-over-sent",
    "hand-over-acknowledged",
    "start-written",
    "log-written",
    "output-half-read",
    "command-ended",
    "artifact-stored",
    "artifacts-stored",
    "log-closed",
    "finish-written",
    "task-closed",
    "container-removed",
    "retry-written",
    "cancel-written",
    "delete-written",
)


def reached(point: str) -> None:
    """Die here by SIGKILL if a test wants that; the one place that looks at the variable."""
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    name, _, file = wanted.partition("=")
    if name != point:
        return
    try:
        Path(file).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
