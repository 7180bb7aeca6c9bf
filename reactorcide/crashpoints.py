"""Points at which a test kills or pauses the process, to show that nothing is lost there.

Each is on a boundary between the database, Corndogs, the engine and the object store. In production the
variable is not set, and a point costs one lookup in the environment.
"""

import os
import signal
from pathlib import Path

VARIABLE = "REACTORCIDE_CRASH_AT"
"""``POINT=FILE``: die at that point, once, if the file exists; it is removed first. If it is a FIFO, wait
instead until a writer has opened and closed it."""

POINTS = (
    "submit-committed",
    "submit-task-made",
    "claim-task-taken",
    "claim-row-written",
    "warm-container-created",
    "warm-container-ready",
    "warm-container-taken",
    "container-created",
    "service-created",
    "source-put",
    "container-attached",
    "container-started",
    "services-ready",
    "handing-over-written",
    "handover-half-sent",
    "handover-sent",
    "handover-acknowledged",
    "start-written",
    "log-written",
    "output-half-read",
    "command-ended",
    "artifact-stored",
    "artifacts-stored",
    "cache-stored",
    "cache-recorded",
    "log-closed",
    "log-file-sealed",
    "log-rows-sealed",
    "log-sealed",
    "finish-written",
    "task-closed",
    "container-removed",
    "retry-decided",
    "retry-written",
    "cancel-written",
    "delete-written",
    "delivery-body-stored",
    "delivery-stored",
    "delivery-runs-written",
    "run-committed",
    "run-approve-written",
    "run-cancel-written",
    "run-delete-written",
    "run-rerun-written",
    "project-delete-written",
    "dependents-cancelled",
    "dependents-committed",
    "schedule-due",
    "schedule-written",
    "outbox-sending",
    "outbox-sent",
    "outbox-marked",
    "migrate-objects-copied",
    "migrate-rows-copied",
    "rekey-key-created",
    "rekey-written",
    "rekey-committed",
)


def reached(point: str) -> None:
    """Die or wait here if the variable says so."""
    setting = os.environ.get(VARIABLE)
    if setting is None:
        return
    name, _, file = setting.partition("=")
    if name != point:
        return
    path = Path(file)
    if path.is_fifo():
        path.read_bytes()
        path.unlink()
        return
    try:
        path.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
