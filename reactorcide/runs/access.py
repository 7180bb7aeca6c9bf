"""Access control: which runs a caller may see and change."""

from reactorcide.domain.accounts import User
from reactorcide.domain.errors import Forbidden
from reactorcide.domain.runs import Run
from reactorcide.runs import RunContext


def get(context: RunContext, user: User, run_id: str) -> Run:
    """Return a run that ``user`` may see.

    Raises ``NotFound`` where there is none, ``Forbidden`` where it is somebody else's.
    """
    run = context.jobs.store.runs.get(run_id)
    if run.user_id != user.user_id and not user.is_admin:
        raise Forbidden("this run belongs to somebody else")
    return run
