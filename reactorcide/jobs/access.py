"""Access control: which jobs, runs and projects a caller may see and change.

Access to a job or run of a project follows the project, whoever started it; without a project it belongs to
its user. Admins can see and change everything.
"""

from reactorcide.domain.accounts import User
from reactorcide.domain.errors import Conflict, Forbidden, NotFound
from reactorcide.domain.jobs import Job
from reactorcide.domain.projects import Project, ProjectRole, Visibility
from reactorcide.jobs import StoredJobs
from reactorcide.logs.masking import hide_in_own_log


def get(context: StoredJobs, user: User, job_id: str, needed: ProjectRole = ProjectRole.READ) -> Job:
    """Return a job that ``user`` may see and, if it is of a project, has the role ``needed`` for.

    Raises ``NotFound`` if there is none (any more), or none for this user, and ``Forbidden`` if it is
    somebody else's or the role is not enough.
    """
    job = context.store.jobs.get(job_id)
    if job.deleted:
        raise NotFound(f"there is no job {job_id}")
    check_job(context, user, job, needed)
    hide_in_own_log(job.definition)
    return job


def check_job(context: StoredJobs, user: User, job: Job, needed: ProjectRole = ProjectRole.READ) -> None:
    """Raise unless ``user`` has the role ``needed`` for a job; see ``check_item``."""
    check_item(context, user, f"job {job.job_id}", job.user_id, _project_of(context, job), needed)


def check_item(
    context: StoredJobs, user: User, item: str, user_id: str, project_id: str | None, needed: ProjectRole
) -> None:
    """Raise unless ``user`` has the role ``needed`` for an item.

    ``item`` is its kind and its id; it belongs to the project, or else to the user with ``user_id``.
    Raises ``NotFound`` and ``Forbidden``.
    """
    if project_id is not None:
        check(context, user, project_id, needed, f"there is no {item}")
    elif user_id != user.user_id and not user.is_admin:
        raise Forbidden(f"this {item.partition(' ')[0]} belongs to somebody else")


def check(context: StoredJobs, user: User, project_id: str, needed: ProjectRole, unknown: str) -> None:
    """Raise ``NotFound`` with the message ``unknown`` if ``user`` may not see a project.

    Raises ``Forbidden`` if the user sees it and lacks the role ``needed``.
    """
    if user.is_admin:
        return
    role = context.store.projects.role(project_id, user.user_id)
    if role is None:
        project = context.store.projects.find(project_id)
        visible = (Visibility.PUBLIC,) if user.is_anonymous else (Visibility.PUBLIC, Visibility.INTERNAL)
        if project is None or project.visibility not in visible:
            raise NotFound(unknown)
        role = ProjectRole.READ
    if not role.includes(needed):
        raise Forbidden(f"this needs the role {needed} in the project; ask one of its owners for it")


def project(
    context: StoredJobs, user: User, name_or_id: str, needed: ProjectRole = ProjectRole.READ
) -> Project:
    """Return a project, by its name or id, in which ``user`` has the role ``needed``.

    Raises as ``check``.
    """
    unknown = f"there is no project {name_or_id}"
    item = context.store.projects.find(name_or_id) or context.store.projects.find_by_name(name_or_id)
    if item is None:
        raise NotFound(unknown)
    check(context, user, item.project_id, needed, unknown)
    return item


def check_enabled(project: Project) -> None:
    """Raise ``Conflict`` if a project is disabled."""
    if project.disabled:
        raise Conflict(f"the project {project.name} is disabled and starts nothing; its owners can enable it")


def may_see_job(context: StoredJobs, user: User, job: Job) -> bool:
    """Return whether ``user`` may see a job."""
    return may_see(context, user, job.user_id, _project_of(context, job))


def may_see_run_of_project(context: StoredJobs, user: User, run_id: str) -> bool:
    """Return whether a run belongs to a project, and ``user`` may see it."""
    project_id = context.store.runs.project_of(run_id)
    return project_id is not None and may_see(context, user, "", project_id)


def may_see(context: StoredJobs, user: User, user_id: str, project_id: str | None) -> bool:
    """Return whether ``user`` may see items of a project, or else of the user with ``user_id``."""
    try:
        check_item(context, user, "item", user_id, project_id, ProjectRole.READ)
    except (NotFound, Forbidden):
        return False
    return True


def _project_of(context: StoredJobs, job: Job) -> str | None:
    return None if job.run_id is None else context.store.runs.project_of(job.run_id)


_OF_RUN = {
    "deleted": "DELETE /runs/{} deletes the run with all its jobs, once it is over",
    "pinned": "PUT /runs/{}/pin keeps the run with all its jobs",
    "unpinned": "DELETE /runs/{}/pin lets retention remove the run with all its jobs",
    "rerun": "POST /runs/{}/rerun repeats the run, or what failed in it",
}
"""The calls for actions that apply to a whole run."""


def check_alone(job: Job, done: str) -> None:
    """Raise ``Conflict`` for a job of a run, because the action ``done`` applies to whole runs."""
    if job.run_id is not None:
        call = _OF_RUN[done].format(job.run_id)
        raise Conflict(f"the job belongs to a run, and is not {done} alone: {call}")
