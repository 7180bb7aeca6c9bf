"""The commit statuses that a run owes its forge. Times are Unix milliseconds in UTC."""

from reactorcide.domain.forges import StatusState
from reactorcide.lib.records import record


@record(kw_only=True)
class OwedStatus:
    """A commit status that a run owes its forge."""

    project_id: str
    sha: str
    context: str
    state: StatusState
    description: str
    run_id: str
    turn: int
    """The turn of the run: an older run does not replace the status of a newer one."""


@record(kw_only=True)
class StatusRecord(OwedStatus):
    """A commit status from the database: the one to send, and the one that was sent last."""

    status_id: str
    created_at_ms: int
    version: int
    """Increases with every status to send."""
    owed_since_ms: int | None
    """``None``: nothing is to be sent."""
    next_at_ms: int | None
    """When it is sent next, unless the project's lane is paused; ``None`` as above."""
    failures: int
    """The number of failures in a row."""
    problem: str | None
    """The reason of the last failure."""
    sent_state: StatusState | None
    sent_description: str | None
    sent_at_ms: int | None
