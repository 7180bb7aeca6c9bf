"""The secrets of a run: the values of the references ``${secret:path:key}`` of its jobs."""

from collections.abc import Collection, Iterator, Mapping

from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.named_secrets import UNNAMED_COMMIT, NamedSecret, SecretUse
from reactorcide.domain.runs import JobTemplate, Run
from reactorcide.store import Records
from reactorcide.workflows.references import Template


class RunSecrets:
    """The secrets for the jobs of a run: those of its project, or those of the request that started it."""

    def __init__(self, tx: Records, run: Run, *, now_ms: int) -> None:
        self._tx = tx
        self._run = run
        self._now_ms = now_ms
        self._start_secrets: Mapping[str, str] | None = None

    def value(self, name: str) -> str:
        """Return the value of a secret, and record its use; raises ``InvalidInput`` if the use is not
        allowed."""
        run = self._run
        if run.project_id is None:
            value = self._secrets_of_start().get(name)
            if value is None:
                raise InvalidInput(
                    f"there is no secret {name}: a run of no project has only those that it is started with"
                )
            return value
        if not run.is_trusted:
            is_pull_request = run.event.get("name", "").startswith("pull_request_")
            code = "a pull request of a fork" if is_pull_request else UNNAMED_COMMIT
            raise InvalidInput(f"secret {name} may not be used for {code}")
        secret = self._find(run.project_id, name)
        if secret is None:
            raise InvalidInput(f"there is no secret {name} that the project may use")
        refusal = secret.rules.refusal(
            event=run.event.get("name", ""),
            branch=run.event.get("branch", ""),
            tag=run.event.get("tag", ""),
            workflow_id=run.workflow_id,
        )
        if refusal is not None:
            raise InvalidInput(f"secret {name} may not be used for {refusal}")
        use = SecretUse(
            project_id=run.project_id,
            workflow_id=run.workflow_id,
            run_id=run.run_id,
            used_at_ms=self._now_ms,
        )
        self._tx.named_secrets.used(secret, use)
        return self._tx.named_secrets.value(secret)

    def masked(self, names: Collection[str]) -> tuple[str, ...]:
        """Return the values of the existing secrets, because a job must not show secrets of another one."""
        project_id = self._run.project_id
        if not self._run.is_trusted and project_id is not None:
            # Its jobs have no secrets, and masking would reveal whether a stranger's guess is right.
            return ()
        if project_id is None:
            values = self._secrets_of_start() if names else {}
            return tuple(values[name] for name in names if name in values)
        secrets = (self._find(project_id, name) for name in names)
        return tuple(self._tx.named_secrets.value(secret) for secret in secrets if secret is not None)

    def _find(self, project_id: str, name: str) -> NamedSecret | None:
        """Return a secret of the project, or else one of the service that lists the project."""
        own = self._tx.named_secrets.find(project_id, name)
        if own is not None:
            return own
        shared = self._tx.named_secrets.find(None, name)
        return shared if shared is not None and project_id in shared.projects else None

    def _secrets_of_start(self) -> Mapping[str, str]:
        if self._start_secrets is None:
            self._start_secrets = self._tx.runs.secrets_of_start(self._run.run_id)
        return self._start_secrets


def secrets_in(template: JobTemplate) -> set[str]:
    """Return the names of the secrets that the definition of a node's job refers to."""
    return {secret for _, names in _variables(template) for secret in names}


def variables_with_secrets(template: JobTemplate) -> set[str]:
    """Return the names of the variables of a node's job and its services that contain secrets."""
    return {variable for variable, names in _variables(template) if names}


def _variables(template: JobTemplate) -> Iterator[tuple[str, list[str]]]:
    """Yield each variable with the secrets that its value refers to."""
    services = template.get("services", {}).values()
    for environment in (template["environment"], *(service["environment"] for service in services)):
        for variable, value in environment.items():
            references = Template.of_json(value).references
            yield variable, [item.name for item in references if item.source == "secret"]
