"""The commit statuses that a run owes its forge. Times are Unix milliseconds in UTC."""

from dataclasses import dataclass

from reactorcide.domain.forges import StatusState


@dataclass(frozen=True, slots=True, kw_only=True)
class OwedStatus:
    """What a forge is to be told about a commit because of a run."""

    project_id: str
    sha: str
    context: str
    state: StatusState
    description: str
    run_id: str
    turn: int
    """Of the run: the status of a newer run is not replaced by that of an older one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRecord(OwedStatus):
    """A commit status as the database has it: what is to be sent, and what was sent last."""

    status_id: str
    created_at_ms: int
    version: int
    """Counts what was to be sent."""
    owed_since_ms: int | None
    """``None``: nothing is to be sent."""
    next_at_ms: int | None
    """When it is sent next, unless the project's statuses wait; ``None`` as above."""
    failures: int
    """How often in a row it could not be sent."""
    problem: str | None
    """Why it could not be sent last."""
    sent_state: StatusState | None
    sent_description: str | None
    sent_at_ms: int | None
