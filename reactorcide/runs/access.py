"""Access control: which runs a caller may see and change."""

from reactorcide.domain.accounts import User
from reactorcide.domain.projects import ProjectRole
from reactorcide.domain.runs import Run
from reactorcide.jobs import access
from reactorcide.runs import RunContext


def get(context: RunContext, user: User, run_id: str, needed: ProjectRole = ProjectRole.READ) -> Run:
    """Return a run that ``user`` may see and, if it is of a project, has the role ``needed`` for.

    Raises ``NotFound`` if there is none, or none for this user, and ``Forbidden`` if it is somebody
    else's or the role is not enough.
    """
    run = context.jobs.store.runs.get(run_id)
    access.check_item(context.jobs, user, f"run {run_id}", run.user_id, run.project_id, needed)
    return run
