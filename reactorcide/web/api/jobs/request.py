"""The body of a submission: its fields, and the rules between them."""

import re
from copy import deepcopy
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, StringConstraints, create_model, model_validator

from reactorcide.domain import images, services
from reactorcide.domain.definition import (
    JOB_FIELDS,
    MAX_COMMAND_BYTES,
    MAX_DESCRIPTION_BYTES,
    MAX_VARIABLES,
    MIN_MEMORY_BYTES,
    MIN_SECRET_CHARS,
)
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.fields import JobField
from reactorcide.domain.jobs import ARTIFACTS_DIR
from reactorcide.domain.secrets import REDACTED, check_not_redacted, guess, secret_variables
from reactorcide.domain.services import JobService
from reactorcide.domain.variables import MAX_EXEC_BYTES, MAX_VALUE_BYTES, VARIABLE_NAME, exec_bytes
from reactorcide.lib import globs, sizes
from reactorcide.lib.ids import is_beginning_of_id
from reactorcide.web.api.schemas import Body

_CONTAINER_PATH = re.compile(r"/[^\0]*")
_MAX_QUOTED_CHARS = 100
_FIELDS_OF = {
    kind: tuple(item.json_name for item in JOB_FIELDS if item.about.source_type == kind)
    for kind in ("git", "copy")
}


def _request_field(item: JobField) -> tuple[Any, Any]:
    """Return the type of a field in a request, and pydantic's description of it."""
    about = item.about
    kind = about.request_type or about.json_type or item.type
    if about.item_limits:
        kind = list[
            Annotated[
                str,
                StringConstraints(**about.item_limits),
                Field(json_schema_extra=dict(about.item_schema)),
            ]
        ]
    default = None if about.source_type is not None else item.json_default
    default_option: dict[str, Any] = {"default": default}
    if isinstance(default, dict):
        default_option = {"default_factory": dict}
    if default is None:
        kind = kind | None
    return kind, Field(
        **default_option, description=about.help, json_schema_extra=dict(about.schema) or None, **about.limits
    )


_FIELDS: dict[str, Any] = {item.json_name: _request_field(item) for item in JOB_FIELDS}
_Fields: Any = create_model("_Fields", __base__=Body, **_FIELDS)


class JobRequest(_Fields):  # type: ignore[misc]  # its fields come from their declaration
    """A job to submit."""

    @model_validator(mode="after")
    def _check(self) -> "JobRequest":
        # Pydantic passes an InvalidInput on unchanged, so that it can name its field.
        self._check_source()
        self._check_sizes()
        self._check_secrets()
        for field in ("code_dir", "job_dir"):
            path = getattr(self, field)
            if path is not None and not _is_container_path(path):
                raise InvalidInput(f"{field} must be an absolute path in the container, without '..'", field)
        if self.code_dir.rstrip("/") == "":
            raise InvalidInput("code_dir must not be the container's root", "code_dir")
        # The artifacts directory must start empty, or files of the source would count as artifacts.
        for field, path in (("code_dir", self.code_dir + "/"), ("job_dir", self.job_dir or "/")):
            if re.sub("/+", "/", path).startswith(ARTIFACTS_DIR + "/"):
                raise InvalidInput(f"{field} must not lie in {ARTIFACTS_DIR}", field)
        if self.runner_image is not None and not images.is_image_reference(self.runner_image):
            raise InvalidInput("runner_image is not an image reference", "runner_image")
        for glob in self.artifacts or ():
            problem = globs.problem(glob)
            if problem is not None:
                raise InvalidInput(f"artifacts: {glob!r} {problem}", "artifacts")
        memory_limit_bytes = self.memory_limit_bytes
        if memory_limit_bytes is not None and not MIN_MEMORY_BYTES <= memory_limit_bytes < 2**63:
            raise InvalidInput("memory_limit must be at least 6m", "memory_limit")
        return self

    def _check_source(self) -> None:
        if self.source_type == "git" and self.git_url is None:
            raise InvalidInput("git_url is required if source_type is git", "git_url")
        other = "copy" if self.source_type == "git" else "git"
        for field in _FIELDS_OF[other]:
            if getattr(self, field) is not None:
                raise InvalidInput(
                    f"{field} belongs to source_type {other}, not to {self.source_type}", field
                )
        if self.source_path is not None and "\0" in self.source_path:
            raise InvalidInput("source_path must not contain NUL", "source_path")
        copied = [field for field in _FIELDS_OF["copy"] if getattr(self, field) is not None]
        if len(copied) > 1:
            raise InvalidInput(f"give only one of {', '.join(_FIELDS_OF['copy'])}", copied[1])
        if self.source_job_id is not None and not is_beginning_of_id(self.source_job_id):
            raise InvalidInput("source_job_id is not the id of a job", "source_job_id")

    def _check_sizes(self) -> None:
        if "\0" in self.name:
            # It becomes a variable in the container.
            raise InvalidInput("name must not contain NUL", "name")
        command_bytes = len(self.job_command.encode())
        if "\0" in self.job_command:
            raise InvalidInput("job_command must not contain NUL", "job_command")
        if command_bytes > MAX_COMMAND_BYTES:
            raise InvalidInput("job_command is longer than 100 KiB", "job_command")
        if len(self.description.encode()) > MAX_DESCRIPTION_BYTES:
            raise InvalidInput("description is longer than 64 KiB", "description")
        if len(self.job_env_vars) > MAX_VARIABLES:
            raise InvalidInput(f"job_env_vars has more than {MAX_VARIABLES} variables", "job_env_vars")
        for name, value in self.job_env_vars.items():
            if VARIABLE_NAME.fullmatch(name) is None:
                raise InvalidInput(f"job_env_vars: {_quoted(name)} is not a variable name", "job_env_vars")
            if len(value.encode()) > MAX_VALUE_BYTES or "\0" in value:
                raise InvalidInput(
                    f"job_env_vars: the value of {name} is longer than 32 KiB or contains NUL", "job_env_vars"
                )
        if command_bytes + exec_bytes(self.job_env_vars) >= MAX_EXEC_BYTES:
            raise InvalidInput("job_env_vars and job_command together must stay below 1 MiB", "job_env_vars")

    def _check_secrets(self) -> None:
        environments = {"job_env_vars": self.job_env_vars} | {
            f"services: {name}": service.environment for name, service in (self.parsed_services or {}).items()
        }
        for name in self.secret_env_vars or ():
            values = [variables[name] for variables in environments.values() if name in variables]
            if not values:
                where = "job_env_vars or services" if self.services else "job_env_vars"
                raise InvalidInput(
                    f"secret_env_vars: there is no variable {_quoted(name)} in {where}", "secret_env_vars"
                )
            if any(0 < len(value) < MIN_SECRET_CHARS for value in values):
                raise InvalidInput(
                    f"secret_env_vars: the value of {name} is shorter than {MIN_SECRET_CHARS} characters; "
                    "masking it would make the log unreadable",
                    "secret_env_vars",
                )
        names = self.secret_names
        for where, variables in environments.items():
            for name, value in secret_variables(variables, names).items():
                if value == REDACTED:
                    raise InvalidInput(
                        f"{where}: the value of {name} is the placeholder {REDACTED}; send the secret",
                        where.partition(":")[0],
                    )
        if self.git_url is not None:
            check_not_redacted(self.git_url)

    @property
    def secret_names(self) -> tuple[str, ...]:
        """The names of the secret variables: those listed, or by default those that look like secrets."""
        if self.secret_env_vars is None:
            return guess(self.job_env_vars, self.parsed_services)
        return tuple(dict.fromkeys(self.secret_env_vars))

    @cached_property
    def parsed_services(self) -> dict[str, JobService] | None:
        """The services; raises ``InvalidInput``."""
        return services.parse(self.services)

    @property
    def memory_limit_bytes(self) -> int | None:
        """The memory limit in bytes."""
        if isinstance(self.memory_limit, str):
            try:
                return sizes.parse_size(self.memory_limit)
            except ValueError as exc:
                raise InvalidInput(f"memory_limit: {exc}", "memory_limit") from exc
        limit_bytes: int | None = self.memory_limit
        return limit_bytes


def _quoted(text: str) -> str:
    """Return a client's text for a sentence, cut if it is long."""
    return repr(text if len(text) <= _MAX_QUOTED_CHARS else f"{text[:_MAX_QUOTED_CHARS]}…")


def job_shapes(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the schemas of ``JobRequest`` by name: one of two shapes, selected by ``source_type``.

    ``schema`` is pydantic's schema of ``JobRequest``, which does not have the rules between fields.
    """
    names = {kind: f"{kind.capitalize()}JobRequest" for kind in _FIELDS_OF}
    whole = {
        "title": schema["title"],
        "description": schema["description"],
        "oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in names.values()],
        "discriminator": {
            "propertyName": "source_type",
            "mapping": {kind: f"#/components/schemas/{name}" for kind, name in names.items()},
        },
    }
    shapes: dict[str, dict[str, Any]] = {}
    for kind, name in names.items():
        shape = deepcopy(schema) | {"title": name, "description": f"A job with `source_type` `{kind}`."}
        fields = shape["properties"]
        fields["source_type"] = {"type": "string", "const": kind}
        for other in _FIELDS_OF.keys() - {kind}:
            for field in _FIELDS_OF[other]:
                fields[field] = {"type": "null", "description": f"Only for `source_type` `{other}`."}
        shapes[name] = shape
    git, copy = shapes[names["git"]], shapes[names["copy"]]
    git["required"].append("git_url")
    url = git["properties"]["git_url"]
    url.update(next(choice for choice in url.pop("anyOf") if choice != {"type": "null"}))
    del url["default"]
    # At most one of them may be given.
    one, two, three = _FIELDS_OF["copy"]
    copy["not"] = {
        "anyOf": [
            {"required": list(pair), "properties": {field: {"type": "string"} for field in pair}}
            for pair in ((one, two), (one, three), (two, three))
        ]
    }
    return {"JobRequest": whole, **shapes}


def _is_container_path(path: str) -> bool:
    return (
        len(path) <= 4096
        and _CONTAINER_PATH.fullmatch(path) is not None
        and not any(part in ("..", ".") for part in path.split("/"))
    )
