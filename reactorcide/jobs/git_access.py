"""The git credentials of a project."""

import logging

from reactorcide.domain.forges import ForgeKind
from reactorcide.domain.git_access import DeployKey, GitAccess
from reactorcide.domain.jobs import Job
from reactorcide.domain.projects import MAX_KNOWN_HOSTS_CHARS, CredentialKind, Project
from reactorcide.jobs import StoredJobs
from reactorcide.lib.clock import now_ms

log = logging.getLogger("reactorcide.projects")

_USERNAMES = {ForgeKind.GITLAB: "oauth2"}
"""The user name for a login with a token; GitHub defines it, and Gitea accepts any."""
_USERNAME = "x-access-token"


def of_project(context: StoredJobs, project_id: str) -> GitAccess:
    """Return the credentials of a project for its repository; raises ``NotFound``."""
    projects = context.store.projects
    project = projects.get(project_id)
    private = projects.credential(project_id, CredentialKind.DEPLOY_KEY)
    deploy_key = None
    if private is not None:
        deploy_key = DeployKey(
            private=private,
            known_hosts=projects.credential(project_id, CredentialKind.KNOWN_HOSTS) or "",
            learned=lambda lines: _learn(context, project, lines),
        )
    return GitAccess(
        git_url=project.git_url,
        username=_USERNAMES.get(project.forge, _USERNAME),
        token=projects.credential(project_id, CredentialKind.TOKEN),
        deploy_key=deploy_key,
    )


def of_job(context: StoredJobs, job: Job) -> GitAccess | None:
    """Return the credentials of the project of a job's run; ``None`` without a project."""
    project_id = None if job.run_id is None else context.store.runs.project_of(job.run_id)
    return None if project_id is None else of_project(context, project_id)


def _learn(context: StoredJobs, project: Project, lines: str) -> None:
    """Store the keys of servers that were seen for the first time, and trust them from now on."""
    kind = CredentialKind.KNOWN_HOSTS
    with context.store.transaction() as tx:
        stored = tx.projects.credential(project.project_id, kind) or ""
        if lines not in stored and len(stored) + len(lines) <= MAX_KNOWN_HOSTS_CHARS:
            text = stored + lines
            tx.projects.set_credential(project.project_id, kind, text, now_ms=now_ms(), public=text)
            log.info("the project %s trusts this host key from now on: %s", project.name, lines.strip())
