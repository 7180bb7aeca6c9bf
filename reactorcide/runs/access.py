"""Access control: which runs a caller may see and change."""

from reactorcide.domain.accounts import User
from reactorcide.domain.errors import Forbidden
from reactorcide.domain.projects import ProjectRole
from reactorcide.domain.runs import Run
from reactorcide.jobs import access
from reactorcide.runs import RunContext


def get(context: RunContext, user: User, run_id: str, needed: ProjectRole = ProjectRole.READ) -> Run:
    """Return a run that ``user`` may see, and of a project do with it what the role ``needed`` allows.

    Raises ``NotFound`` where there is none, or none for this user, and ``Forbidden`` where it is somebody
    else's or the role is not enough.
    """
    run = context.jobs.store.runs.get(run_id)
    if run.project_id is not None:
        access.check(context.jobs, user, run.project_id, needed, f"there is no run {run_id}")
    elif run.user_id != user.user_id and not user.is_admin:
        raise Forbidden("this run belongs to somebody else")
    return run
