"""Sealed fields: encryption and decryption of the secrets in a job's row."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.errors import StoreError
from reactorcide.domain.jobs import Job, JobStatus
from reactorcide.domain.outputs import Outputs
from reactorcide.domain.secrets import (
    REDACTED,
    redacted_services,
    redacted_url,
    secret_service_variables,
    secret_variables,
)
from reactorcide.domain.services import JobService, load, with_environments
from reactorcide.store.models.jobs import JobRow
from reactorcide.store.vault import Vault

DEFINITION_FIELDS = tuple(item.name for item in fields(JobDefinition))
_NO_COLUMNS = ("definition", "status", "is_cut")
JOB_FIELDS = tuple(item.name for item in fields(Job) if item.name not in _NO_COLUMNS)
_EVENTS_OF = "events of "
"""Prefix of a user's id as an owner: no id of a job begins with it."""
OUTPUTS_OF = "outputs of "


class SealedFields:
    """Jobs from rows and rows from jobs, with a vault between them. Thread-safe; touches no database."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def seal(
        self,
        job_id: str,
        variables: Mapping[str, str],
        names: Sequence[str],
        git_url: str | None,
        *,
        services: Mapping[str, JobService] | None = None,
        masked: Sequence[str] = (),
    ) -> dict[str, object]:
        """Return the columns of a job's row that can have secrets, with the secrets encrypted."""
        hidden = secret_variables(variables, names)
        of_services = secret_service_variables(services, names)
        redacted = None if git_url is None else redacted_url(git_url)
        encrypted = None
        if hidden or of_services or masked or redacted != git_url:
            secret = {"job_env_vars": hidden, "git_url": git_url, "services": of_services, "masked": masked}
            text = json.dumps(secret)
            encrypted = self._vault.encrypt(text, job_id)
            variables = {**variables, **dict.fromkeys(hidden, REDACTED)}
            services = None if services is None else redacted_services(services, names)
        return {
            "job_env_vars": JobRow.job_env_vars.db_value(variables),
            "git_url": redacted,
            "services": JobRow.services.db_value(services),
            "secret_env_vars": JobRow.secret_env_vars.db_value(names or None),
            "secrets": encrypted,
        }

    def job(self, row: dict[str, Any]) -> Job:
        """Return the job of a row, its secrets decrypted; raises ``StoreError`` if they are damaged."""
        row["services"] = load(row["services"])
        row["masked"] = ()
        if row["secrets"] is not None:
            opened = json.loads(self._vault.decrypt(bytes(row["secrets"]), row["job_id"]))
            row["job_env_vars"] |= opened["job_env_vars"]
            row["git_url"] = opened["git_url"]
            row["masked"] = tuple(opened.get("masked", ()))
            if row["services"] is not None:
                row["services"] = with_environments(row["services"], opened.get("services", {}))
        row["secret_env_vars"] = tuple(row["secret_env_vars"] or ())
        return Job(
            definition=JobDefinition(**{name: row[name] for name in DEFINITION_FIELDS}),
            status=JobStatus(row["status"]),
            is_cut=row.get("is_cut", False),
            **{name: row[name] for name in JOB_FIELDS},
        )

    def seal_text(self, text: str, owner: str) -> bytes:
        """Encrypt a text, bound to ``owner``."""
        return self._vault.encrypt(text, owner)

    def open_text(self, data: bytes, owner: str) -> str:
        """Return the text that was sealed for ``owner``; raises ``StoreError`` if it is damaged."""
        return self._vault.decrypt(data, owner)

    def seal_outputs(self, outputs: Outputs, job_id: str) -> bytes:
        """Encrypt the outputs of a job."""
        return self.seal_text(json.dumps([outputs.values, outputs.variables]), OUTPUTS_OF + job_id)

    def open_outputs(self, data: bytes, job_id: str) -> Outputs:
        """Decrypt the result of ``seal_outputs`` for a job; raises ``StoreError`` if it is damaged."""
        return Outputs(*json.loads(self.open_text(data, OUTPUTS_OF + job_id)))

    def mac(self, data: bytes) -> bytes:
        """Return a message authentication code of ``data`` by the key."""
        return self._vault.mac(data)

    def seal_event_id(self, event_id: int, user_id: str) -> str:
        """Return an event's id for ``user_id``, which reveals neither number nor order."""
        # All of the same length, because a length would reveal the size of the number.
        sealed = self._vault.seal(f"{event_id:020}", _EVENTS_OF + user_id)
        return base64.urlsafe_b64encode(sealed).decode()

    def open_event_id(self, sealed: str, user_id: str) -> int | None:
        """Return the id that was sealed for ``user_id``; ``None`` for anything else."""
        try:
            return int(self._vault.decrypt(base64.urlsafe_b64decode(sealed), _EVENTS_OF + user_id))
        except (StoreError, ValueError):
            return None
