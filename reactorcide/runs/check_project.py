"""Check a project: whether its repository can be fetched, and its token can set commit statuses."""

from time import monotonic

from reactorcide.domain.accounts import SERVICE_USER, User
from reactorcide.domain.errors import InfrastructureError, InvalidInput, JobFailed
from reactorcide.domain.forges import ForgeKind
from reactorcide.domain.projects import CredentialKind, Project, ProjectRole
from reactorcide.forges import FORGES
from reactorcide.forges.repositories import repository_at
from reactorcide.jobs import access, git_access
from reactorcide.lib.records import record
from reactorcide.network import Http
from reactorcide.runs import RunContext

_FETCH_S = 20.0


@record
class ProjectCheck:
    """The problems of a project, a sentence each; ``None`` means no problem."""

    repository: str | None
    """Why the repository cannot be fetched."""
    token: str | None
    """Why the forge gets no commit statuses."""


def check(context: RunContext, http: Http, user: User, project_id: str) -> ProjectCheck:
    """Check with the git server and the forge of a project, within a minute; for its owners."""
    project = access.project(context.jobs, user, project_id, ProjectRole.OWNER)
    return ProjectCheck(_repository_problem(context, project), _token_problem(context, http, project))


def _repository_problem(context: RunContext, project: Project) -> str | None:
    git_url = context.jobs.store.projects.git_url(project.project_id)
    own = git_access.of_project(context.jobs, project.project_id)
    deadline = monotonic() + _FETCH_S
    try:
        # The same way as for a delivery.
        context.commits.commit(
            git_url, project.default_branch, SERVICE_USER.user_id, deadline=deadline, access=own
        )
    except (JobFailed, InvalidInput, InfrastructureError) as exc:
        return str(exc)
    return None


def _token_problem(context: RunContext, http: Http, project: Project) -> str | None:
    if project.forge is ForgeKind.NONE:
        return "the project has no forge for commit statuses; set forge"
    token = context.jobs.store.projects.credential(project.project_id, CredentialKind.TOKEN)
    if token is None:
        return "the project has no token of its forge for commit statuses; set token"
    forge = FORGES[project.forge]
    try:
        request = forge.repository_request(repository_at(project.git_url, project.forge_url), token)
        answer = http.send(request)
    except (InvalidInput, InfrastructureError) as exc:
        return str(exc)
    return forge.token_problem(answer)
