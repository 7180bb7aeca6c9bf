"""The body of a submission: its fields, and what holds between them."""

import re
from copy import deepcopy
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator
from pydantic.config import JsonDict

from reactorcide.domain import globs, images, sizes
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.ids import is_id
from reactorcide.domain.jobs import ARTIFACTS_DIR
from reactorcide.domain.secrets import LEAST_SECRET_CHARS, REDACTED, guess, secret_userinfo, secret_variables
from reactorcide.web.api.schemas import PRINTABLE, Body, QueueName, ShortText

_MOST_COMMAND_BYTES = 100 << 10
_MOST_DESCRIPTION_BYTES = 64 << 10
_MOST_VARIABLES = 1000
_MOST_VALUE_BYTES = 32 << 10
_MOST_EXEC_BYTES = 1 << 20
_LEAST_MEMORY_BYTES = 6 << 20
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_CONTAINER_PATH = re.compile(r"/[^\0]*")
_MOST_GLOBS = 100
_MOST_SHOWN_CHARS = 100
_FIELDS_OF = {
    "git": ("git_url", "git_ref", "git_submodules", "git_depth", "git_tags"),
    "copy": ("source_path", "source_id", "source_job_id"),
}
_WORD = r"\p{L}\p{N}_"
NO_NUL = r"^[^\x00]*$"
_NO_DOTS = r"(?![^\x00]*/\.{1,2}(?:/|$))"
_CODE_DIR = rf"^(?!/*$)(?!/+job/+artifacts(?:/|$)){_NO_DOTS}/[^\x00]*$"
_JOB_DIR = rf"^(?!/+job/+artifacts/){_NO_DOTS}/[^\x00]*$"
_GLOB = (
    r"^(?!(?:[^\x00]*/)?\.{0,2}(?:/|$))"
    r"(?![^\x00]*(?:[^/\x00]\*\*|\*\*[^/\x00]))[^\x00]+$"
)
_GIT_HOST = rf"(?:\[[0-9A-Fa-f:.]+\]|[{_WORD}.][{_WORD}.-]*)"
_GIT_USER = rf"[{_WORD}.+][{_WORD}.+-]*"
_IN_USERINFO = rf"(?:(?![/?#]){PRINTABLE})*"
_GIT_URL = (
    r"^(?!.*%(?:[01][0-9A-Fa-f]|7[Ff]))(?:"
    rf"(?:file://)?/{PRINTABLE}*"
    rf"|(?:https?|git)://(?:{_IN_USERINFO}@)?{_GIT_HOST}(?::[0-9]*)?(?:/{PRINTABLE}*)?"
    rf"|ssh://(?:{_GIT_USER}(?::{_IN_USERINFO})?@)?{_GIT_HOST}(?::[0-9]*)?/{PRINTABLE}*"
    rf"|(?!.*://)(?:{_GIT_USER}@)?{_GIT_HOST}:(?!:)(?![^/]*@){PRINTABLE}+"
    r")$"
)
_GIT_REF = (
    r"^(?!.*(?:[~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|^[-/.]|[/.]$|^@$))"
    rf"{PRINTABLE}+$"
)
_ID = r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_MEMORY: JsonDict = {
    "anyOf": [
        {"type": "integer", "minimum": _LEAST_MEMORY_BYTES, "maximum": 2**63 - 1},
        {"type": "string", "pattern": f"^(?:{sizes.PATTERN})$"},
        {"type": "null"},
    ]
}
_Glob = Annotated[
    str, StringConstraints(min_length=1, max_length=1024), Field(json_schema_extra={"pattern": _GLOB})
]


class JobRequest(Body):
    """A job to be run."""

    name: ShortText = Field(json_schema_extra={"pattern": NO_NUL})
    job_command: str = Field(
        min_length=1,
        description="Run by `/bin/sh -ec` in `job_dir`; at most 100 KiB as UTF-8.",
        json_schema_extra={"maxLength": _MOST_COMMAND_BYTES, "pattern": NO_NUL},
    )
    source_type: Literal["git", "copy"]
    description: str = Field(
        default="",
        description="At most 64 KiB as UTF-8.",
        json_schema_extra={"maxLength": _MOST_DESCRIPTION_BYTES},
    )
    git_url: str | None = Field(
        default=None,
        description="An http(s), ssh or git URL, `user@host:path`, or a path below a source root.",
        json_schema_extra={"maxLength": 4096, "pattern": _GIT_URL},
    )
    git_ref: str | None = Field(
        default=None,
        description="Branch, tag, full ref or commit; remote HEAD.",
        json_schema_extra={"maxLength": 255, "pattern": _GIT_REF},
    )
    git_submodules: bool | None = Field(
        default=None, description="Whether submodules are fetched as well; true."
    )
    git_depth: int | None = Field(
        default=None,
        ge=0,
        le=2**31 - 1,
        description="For `git`: commits of the history that are fetched; 1, and 0 means all.",
    )
    git_tags: bool | None = Field(
        default=None, description="For `git`: whether all tags are fetched as well; false."
    )
    source_path: str | None = Field(
        default=None,
        max_length=4096,
        description="A directory below a source root.",
        json_schema_extra={"minLength": 1, "pattern": NO_NUL},
    )
    source_id: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="In place of `source_path`: what an upload answered.",
    )
    source_job_id: str | None = Field(
        default=None,
        description="In place of `source_path`: a job whose artifacts are copied.",
        json_schema_extra={"format": "uuid", "pattern": _ID},
    )
    runner_image: ShortText | None = Field(
        default=None,
        description="`[host[:port]/]name[:tag][@digest]`; the service's default image.",
        json_schema_extra={"pattern": f"^(?:{images.PATTERN})$"},
    )
    job_env_vars: dict[str, str] = Field(
        default_factory=dict,
        description="Values have at most 32 KiB as UTF-8; with `job_command`, all stay below 1 MiB.",
        json_schema_extra={
            "maxProperties": _MOST_VARIABLES,
            "propertyNames": {"pattern": f"^{_VARIABLE_NAME.pattern}$"},
            "additionalProperties": {"type": "string", "maxLength": _MOST_VALUE_BYTES, "pattern": NO_NUL},
        },
    )
    secret_env_vars: list[str] | None = Field(
        default=None,
        description=(
            "Names among `job_env_vars` with secret values, which are empty or have at least "
            f"{LEAST_SECRET_CHARS} characters; those that look it."
        ),
        json_schema_extra={"items": {"type": "string", "pattern": f"^{_VARIABLE_NAME.pattern}$"}},
    )
    queue_name: QueueName = "default"
    timeout_seconds: int = Field(default=3600, ge=1, le=604_800)
    priority: int = Field(default=0, ge=-(2**31), le=2**31 - 1)
    code_dir: str = Field(
        default="/job/src",
        description="Where the source lies in the container.",
        json_schema_extra={"maxLength": 4096, "pattern": _CODE_DIR},
    )
    job_dir: str | None = Field(
        default=None,
        description="Like `code_dir` where it is left out.",
        json_schema_extra={"maxLength": 4096, "pattern": _JOB_DIR},
    )
    cpu_limit: float | None = Field(default=None, ge=0.01, le=1024, allow_inf_nan=False)
    memory_limit: int | str | None = Field(
        default=None, description="Bytes, or like `512m`, `2g`; at least `6m`.", json_schema_extra=_MEMORY
    )
    retries: int = Field(
        default=0, ge=0, le=10, description="Runs again after the command failed, timed out or was lost."
    )
    artifacts: list[_Glob] | None = Field(
        default=None,
        max_length=_MOST_GLOBS,
        description="Globs of what is kept of `/job/artifacts`: `*` within a name, `**` for any directories.",
    )

    @model_validator(mode="after")
    def _check(self) -> "JobRequest":
        # An InvalidInput passes through pydantic as it is, and so can name its field.
        self._check_source()
        self._check_sizes()
        self._check_secrets()
        for field in ("code_dir", "job_dir"):
            path = getattr(self, field)
            if path is not None and not _is_container_path(path):
                raise InvalidInput(f"{field} must be an absolute path in the container, without '..'", field)
        if self.code_dir.rstrip("/") == "":
            raise InvalidInput("code_dir must not be the container's root", "code_dir")
        # The artifacts begin empty: what lay there from the start could not be told from what was left.
        for field, path in (("code_dir", self.code_dir + "/"), ("job_dir", self.job_dir or "/")):
            if re.sub("/+", "/", path).startswith(ARTIFACTS_DIR + "/"):
                raise InvalidInput(f"{field} must not lie in {ARTIFACTS_DIR}", field)
        if self.runner_image is not None and not images.is_image_reference(self.runner_image):
            raise InvalidInput("runner_image is no image reference", "runner_image")
        for glob in self.artifacts or ():
            problem = globs.problem(glob)
            if problem is not None:
                raise InvalidInput(f"artifacts: {glob!r} {problem}", "artifacts")
        memory_limit_bytes = self.memory_limit_bytes
        if memory_limit_bytes is not None and not _LEAST_MEMORY_BYTES <= memory_limit_bytes < 2**63:
            raise InvalidInput("memory_limit must be at least 6m", "memory_limit")
        return self

    def _check_source(self) -> None:
        if self.source_type == "git" and self.git_url is None:
            raise InvalidInput("git_url is required where source_type is git", "git_url")
        other = "copy" if self.source_type == "git" else "git"
        for field in _FIELDS_OF[other]:
            if getattr(self, field) is not None:
                raise InvalidInput(
                    f"{field} belongs to source_type {other}, not to {self.source_type}", field
                )
        if self.source_path is not None and "\0" in self.source_path:
            raise InvalidInput("source_path must not contain NUL", "source_path")
        given = [field for field in _FIELDS_OF["copy"] if getattr(self, field) is not None]
        if len(given) > 1:
            raise InvalidInput(f"give one of {', '.join(_FIELDS_OF['copy'])}, not several", given[1])
        if self.source_job_id is not None and not is_id(self.source_job_id):
            raise InvalidInput("source_job_id is no id of a job", "source_job_id")

    def _check_sizes(self) -> None:
        if "\0" in self.name:
            # It becomes a variable in the container.
            raise InvalidInput("name must not contain NUL", "name")
        command_bytes = len(self.job_command.encode())
        if "\0" in self.job_command:
            raise InvalidInput("job_command must not contain NUL", "job_command")
        if command_bytes > _MOST_COMMAND_BYTES:
            raise InvalidInput("job_command is longer than 100 KiB", "job_command")
        if len(self.description.encode()) > _MOST_DESCRIPTION_BYTES:
            raise InvalidInput("description is longer than 64 KiB", "description")
        if len(self.job_env_vars) > _MOST_VARIABLES:
            raise InvalidInput(f"job_env_vars has more than {_MOST_VARIABLES} variables", "job_env_vars")
        total_bytes = command_bytes
        for name, value in self.job_env_vars.items():
            if _VARIABLE_NAME.fullmatch(name) is None:
                raise InvalidInput(f"job_env_vars: {_shown(name)} is no name for a variable", "job_env_vars")
            value_bytes = len(value.encode())
            if value_bytes > _MOST_VALUE_BYTES or "\0" in value:
                raise InvalidInput(
                    f"job_env_vars: the value of {name} is longer than 32 KiB or contains NUL", "job_env_vars"
                )
            total_bytes += len(name) + value_bytes + 2
        if total_bytes >= _MOST_EXEC_BYTES:
            raise InvalidInput("job_env_vars and job_command together must stay below 1 MiB", "job_env_vars")

    def _check_secrets(self) -> None:
        for name in self.secret_env_vars or ():
            if name not in self.job_env_vars:
                raise InvalidInput(
                    f"secret_env_vars: there is no variable {_shown(name)} in job_env_vars", "secret_env_vars"
                )
            if 0 < len(self.job_env_vars[name]) < LEAST_SECRET_CHARS:
                raise InvalidInput(
                    f"secret_env_vars: the value of {name} is shorter than {LEAST_SECRET_CHARS} characters; "
                    "replacing it in the log would make that unreadable",
                    "secret_env_vars",
                )
        for name, value in secret_variables(self.job_env_vars, self.secret_names).items():
            if value == REDACTED:
                raise InvalidInput(
                    f"job_env_vars: the value of {name} is {REDACTED}, as the service shows a secret; "
                    "send the secret itself",
                    "job_env_vars",
                )
        if self.git_url is not None and REDACTED in (secret_userinfo(self.git_url) or ""):
            raise InvalidInput(
                f"git_url has {REDACTED} in it, as the service shows credentials; send the real ones",
                "git_url",
            )

    @property
    def secret_names(self) -> tuple[str, ...]:
        """The variables that are secret: those listed, or else those that look it."""
        if self.secret_env_vars is None:
            return guess(self.job_env_vars)
        return tuple(dict.fromkeys(self.secret_env_vars))

    @property
    def memory_limit_bytes(self) -> int | None:
        """The limit in bytes."""
        if isinstance(self.memory_limit, str):
            try:
                return sizes.parse_size(self.memory_limit)
            except ValueError as exc:
                raise InvalidInput(f"memory_limit: {exc}", "memory_limit") from exc
        return self.memory_limit


def _shown(text: str) -> str:
    """Return a text of a client's for a sentence, cut where it is long."""
    return repr(text if len(text) <= _MOST_SHOWN_CHARS else f"{text[:_MOST_SHOWN_CHARS]}…")


def job_shapes(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return by name the schemas to say ``JobRequest`` with: one of two shapes, told by ``source_type``.

    ``schema`` is that of ``JobRequest`` as pydantic has it, which knows nothing of what holds between fields.
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
        shape = deepcopy(schema) | {"title": name, "description": f"A job whose source is `{kind}`."}
        fields = shape["properties"]
        fields["source_type"] = {"type": "string", "const": kind}
        for other in _FIELDS_OF.keys() - {kind}:
            for field in _FIELDS_OF[other]:
                fields[field] = {"type": "null", "description": f"Of `{other}`."}
        shapes[name] = shape
    git, copy = shapes[names["git"]], shapes[names["copy"]]
    git["required"].append("git_url")
    url = git["properties"]["git_url"]
    url.update(next(choice for choice in url.pop("anyOf") if choice != {"type": "null"}))
    del url["default"]
    # At most one of them is there.
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
