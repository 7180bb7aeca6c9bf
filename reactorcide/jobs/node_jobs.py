"""Creating the job of a ready node: its definition, with every reference replaced by its value."""

from typing import Any

from reactorcide.domain.definition import MAX_VARIABLES, JobDefinition
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.jobs import Job, JobStatus
from reactorcide.domain.outputs import Outputs, Values
from reactorcide.domain.runs import JobTemplate, Node, Run
from reactorcide.domain.secrets import guess, without_credentials
from reactorcide.domain.variables import MAX_EXEC_BYTES, exec_bytes
from reactorcide.jobs.run_secrets import RunSecrets, variables_with_secrets
from reactorcide.jobs.submit import SUBMIT_GRACE_MS
from reactorcide.jobs.templates import fill
from reactorcide.lib.ids import new_id
from reactorcide.store import Records
from reactorcide.workflows.references import Reference


def make_job(tx: Records, run: Run, node: Node, *, now_ms: int) -> Job:
    """Insert the job of a ready node; raises ``InvalidInput`` if its definition is invalid."""
    job = Job(
        job_id=new_id(),
        user_id=run.user_id,
        definition=_definition(tx, run, node, now_ms=now_ms),
        status=JobStatus.SUBMITTED,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        rerun_of=node.job_id,
        run_id=run.run_id,
        node=node.name,
    )
    tx.jobs.add(job, next_submit_at_ms=now_ms + SUBMIT_GRACE_MS)
    return job


def _definition(tx: Records, run: Run, node: Node, *, now_ms: int) -> JobDefinition:
    template = tx.runs.template(run.run_id, node.name)
    needed = _Needed(tx, run.run_id)
    secrets = RunSecrets(tx, run, now_ms=now_ms)

    def value_of(reference: Reference) -> str:
        is_secret = reference.source == "secret"
        return secrets.value(reference.name) if is_secret else needed.value_of(reference)

    filled = fill(template, value_of)
    variables = {
        **_variables(run, node),
        **_of_builder(tx, run, template),
        **filled.environment,
        "REACTORCIDE_RUN_ID": run.run_id,
    }
    size_bytes = len(filled.fields["job_command"].encode()) + exec_bytes(variables)
    if len(variables) > MAX_VARIABLES:
        raise InvalidInput(f"with those of the run it has more than {MAX_VARIABLES} variables")
    if size_bytes >= MAX_EXEC_BYTES:
        raise InvalidInput("with those of the run its variables and its command are 1 MiB or more")
    return JobDefinition(
        **filled.fields,
        **_source(tx, run, template),
        job_env_vars=variables,
        services=filled.services,
        secret_env_vars=tuple(
            dict.fromkeys((*guess(variables, filled.services), *variables_with_secrets(template)))
        ),
        # A run that an older version has started has none.
        masked=secrets.masked(template.get("secrets", ())),
    )


def _source(tx: Records, run: Run, template: JobTemplate) -> dict[str, Any]:
    if not template["checkout"]:
        return {"source_type": "copy"}
    if run.source.source_id is not None:
        return {"source_type": "copy", "source_id": run.source.source_id}
    return {
        "source_type": "git",
        "git_url": tx.runs.git_url(run.run_id),
        # The commit of the run, even if its branch has moved.
        "git_ref": run.sha,
        "git_submodules": template["submodules"],
    }


def _variables(run: Run, node: Node) -> dict[str, str]:
    """Return the variables that a run gives its jobs, compatible with the original Reactorcide."""
    event = run.event
    url = without_credentials(run.source.git_url or "")
    values = {
        "WORKFLOW": run.workflow_name,
        "NODE": node.name,
        "PROJECT": event.get("project"),
        "EVENT_TYPE": event.get("name"),
        "BRANCH": event.get("branch") or event.get("tag"),
        "TAG": event.get("tag"),
        "SHA": run.sha,
        "SOURCE_URL": url,
        "HEAD_ACTOR": event.get("author") or event.get("actor"),
    }
    if event.get("name", "").startswith("pull_request_"):
        base, head = event.get("base_branch"), event.get("branch")
        head_url = without_credentials(event.get("head_url") or url)
        values |= {
            "BRANCH": base,
            "SOURCE_URL": url if run.is_trusted else head_url,
            "DIFF_BASE": event.get("base_sha"),
            "PR_NUMBER": event.get("number"),
            "PR_REF": head,
            "PR_BASE_REF": base,
            "HEAD_URL": head_url,
            "HEAD_REF": head,
            "BASE_URL": url,
            "BASE_REF": base,
            "IS_FORK_PR": None if run.is_trusted else "true",
        }
    return {f"REACTORCIDE_{name}": value for name, value in values.items() if value}


def _of_builder(tx: Records, run: Run, template: JobTemplate) -> dict[str, str]:
    """Return the variables of a job that builds images; raises ``InvalidInput`` if it may not.

    Checked for each job, because the grant may have been revoked since the start of the run.
    """
    if not template.get("needs_builder"):
        return {}
    address = template["buildkit_address"]
    project = None if run.project_id is None else tx.projects.get(run.project_id)
    if not run.is_trusted:
        problem = "the code of a stranger never gets it"
    elif address is None:
        problem = "the operator has named no BuildKit, with --buildkit-address"
    elif project is None:
        problem = "only a project's jobs may have it, where an admin has granted it to the project"
    elif not project.builder:
        problem = f"no admin has granted it to {project.name}, with 'reactorcide project change --builder'"
    else:
        return {"BUILDKIT_HOST": address}
    raise InvalidInput(f"the capability builder cannot be used: {problem}")


class _Needed:
    """The outputs of the jobs of a run, read on first use."""

    def __init__(self, tx: Records, run_id: str) -> None:
        self._tx = tx
        self._run_id = run_id
        self._written: dict[str, Values] = {}

    def value_of(self, reference: Reference) -> str:
        """Return the output for a reference; raises ``InvalidInput`` if it is not available."""
        job, key = reference.output
        if job not in self._written:
            # It has no matrix, and so one node with the same name.
            outputs = self._tx.runs.outputs(self._run_id, [job])
            self._written[job] = outputs.get(job, Outputs()).all
        if key not in self._written[job]:
            raise InvalidInput(f"{reference} is not available: {job} wrote no {key}")
        value = self._written[job][key]
        if value is None:
            raise InvalidInput(f"{reference} is refused: its value contains a secret")
        return value
