"""The definition of a job: each field is declared once.

The columns of a job's row, the API's requests, answers and document, the options of ``reactorcide submit``
and the lines of ``reactorcide jobs show`` come from this declaration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from reactorcide.domain import images, services
from reactorcide.domain.fields import About, JobField, Option, SourceType
from reactorcide.domain.services import JobService
from reactorcide.domain.variables import MAX_VALUE_BYTES, VARIABLE_NAME
from reactorcide.lib import sizes
from reactorcide.lib.records import record

MAX_COMMAND_BYTES = 100 << 10
MAX_DESCRIPTION_BYTES = 64 << 10
MAX_VARIABLES = 1000
MIN_MEMORY_BYTES = 6 << 20
MIN_SECRET_CHARS = 4
"""Shorter values are not masked in logs, because masking them would make the log unreadable."""

# Checks in code, which give better sentences, stand in the document as patterns: ECMA-262 regular
# expressions with the flag "u", as in JSON Schema. PRINTABLE is str.isprintable without the space.
PRINTABLE = r"[\p{L}\p{M}\p{N}\p{P}\p{S}]"
_WORD = r"\p{L}\p{N}_"
_NO_NUL = r"^[^\x00]*$"
_NO_DOTS = r"(?![^\x00]*/\.{1,2}(?:/|$))"
_CODE_DIR = rf"^(?!/*$)(?!/+job/+artifacts(?:/|$)){_NO_DOTS}/[^\x00]*$"
_JOB_DIR = rf"^(?!/+job/+artifacts/){_NO_DOTS}/[^\x00]*$"
_GLOB = (
    r"^(?!(?:[^\x00]*/)?\.{0,2}(?:/|$))"
    r"(?![^\x00]*(?:[^/\x00]\*\*|\*\*[^/\x00]))[^\x00]+$"
)
_GIT_HOST = rf"(?:\[[0-9A-Fa-f:.]+\]|[{_WORD}.][{_WORD}.-]*)"
# 1 to 65535 in at most five digits, or none.
_PORT = (
    r"(?::(?:(?![0-9]{6})0*"
    r"(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?)?"
)
_GIT_USER = rf"[{_WORD}.+][{_WORD}.+-]*"
_IN_USERINFO = rf"(?:(?![/?#]){PRINTABLE})*"
_GIT_URL = (
    r"^(?!.*%(?:[01][0-9A-Fa-f]|7[Ff]))(?:"
    # A local path alone may have spaces.
    rf"(?:file://)?/(?:{PRINTABLE}| )*"
    rf"|(?:https?|git)://(?:{_IN_USERINFO}@)?{_GIT_HOST}{_PORT}(?:/{PRINTABLE}*)?"
    rf"|ssh://(?:{_GIT_USER}(?::{_IN_USERINFO})?@)?{_GIT_HOST}{_PORT}/{PRINTABLE}*"
    rf"|(?!.*://)(?:{_GIT_USER}@)?{_GIT_HOST}:(?!:)(?![^/]*@){PRINTABLE}+"
    r")$"
)
_GIT_REF = (
    r"^(?!.*(?:[~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|^[-/.]|[/.]$|^@$))"
    rf"{PRINTABLE}+$"
)
_ID = r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_SHA256 = r"^[0-9a-f]{64}$"
_COUNT = {"minimum": 0}


def _field(about: About, default: Any = MISSING, *, is_secret: bool = False) -> Any:
    if callable(default):
        return field(default_factory=default, repr=not is_secret, metadata={"about": about})
    return field(default=default, repr=not is_secret, metadata={"about": about})


@record(kw_only=True)
class JobDefinition:
    """The definition of a job, with every default filled in. A rerun has the same definition."""

    name: str = _field(
        About(
            limits={"min_length": 1, "max_length": 255},
            schema={"pattern": _NO_NUL},
            title="Name",
            example="test the main branch",
        )
    )
    job_command: str = _field(
        About(
            help="Run by `/bin/sh -ec` in `job_dir`; at most 100 KiB as UTF-8.",
            limits={"min_length": 1},
            schema={"maxLength": MAX_COMMAND_BYTES, "pattern": _NO_NUL},
            title="Command",
            example="python -m unittest",
        )
    )
    source_type: SourceType = _field(About(example="git"))
    description: str = _field(
        About(
            help="At most 64 KiB as UTF-8.",
            schema={"maxLength": MAX_DESCRIPTION_BYTES},
            title="Description",
            option=Option(name="--description", help="What the job is for."),
            example="",
        ),
        "",
    )
    git_url: str | None = _field(
        About(
            help="An http(s), ssh or git URL, `user@host:path`, or a path below a source root.",
            schema={"maxLength": 4096, "pattern": _GIT_URL},
            source_type="git",
            title="Repository",
            example="https://git.example/team/project.git",
        ),
        None,
        is_secret=True,
    )
    git_ref: str | None = _field(
        About(
            help="Branch, tag, full ref or commit; by default the remote's HEAD.",
            schema={"maxLength": 255, "pattern": _GIT_REF},
            source_type="git",
            title="Ref",
            option=Option(
                name="--ref", help="Branch, tag or commit of that repository; its HEAD by default."
            ),
            example="main",
        ),
        None,
    )
    git_submodules: bool = _field(
        About(
            help="Fetch submodules too; true by default.",
            source_type="git",
            json_default=True,
            title="Submodules",
            option=Option(name="--submodules", help="Fetch the repository's submodules too; the default."),
            example=True,
        ),
        False,
    )
    git_depth: int = _field(
        About(
            help="For `git`: number of commits of history to fetch; 1 by default, 0 fetches all.",
            limits={"ge": 0, "le": 2**31 - 1},
            answer_schema=_COUNT,
            source_type="git",
            title="History, commits",
            option=Option(
                name="--git-depth",
                metavar="COMMITS",
                help="Number of commits of history to fetch; 1 by default, 0 fetches all.",
            ),
            example=1,
        ),
        1,
    )
    git_tags: bool = _field(
        About(
            help="For `git`: fetch all tags too; false by default.",
            source_type="git",
            title="All tags",
            option=Option(
                name="--git-tags",
                help="Fetch all tags too, as git describe needs; off by default.",
            ),
            example=False,
        ),
        False,
    )
    source_path: str | None = _field(
        About(
            help="A directory below a source root.",
            limits={"max_length": 4096},
            schema={"minLength": 1, "pattern": _NO_NUL},
            source_type="copy",
            title="Source",
        ),
        None,
    )
    source_id: str | None = _field(
        About(
            help="Instead of `source_path`: the id of an uploaded source.",
            limits={"pattern": _SHA256},
            answer_schema={"pattern": _SHA256},
            source_type="copy",
            title="Uploaded source",
        ),
        None,
    )
    source_job_id: str | None = _field(
        About(
            help="Instead of `source_path`: the id of a job whose artifacts to copy.",
            schema={"format": "uuid", "pattern": _ID},
            answer_schema={"format": "uuid"},
            source_type="copy",
            title="Source job",
        ),
        None,
    )
    runner_image: str = _field(
        About(
            help="`[host[:port]/]name[:tag][@digest]`; by default the service's default image.",
            limits={"min_length": 1, "max_length": 255},
            schema={"pattern": f"^(?:{images.PATTERN})$"},
            json_default=None,
            title="Image",
            option=Option(
                name="--image", help="Image of the container; by default the service's default image."
            ),
            example="python:3.13-alpine",
        )
    )
    job_env_vars: Mapping[str, str] = _field(
        About(
            help="At most 32 KiB as UTF-8 each; all variables and `job_command` together below 1 MiB.",
            schema={
                "maxProperties": MAX_VARIABLES,
                "propertyNames": {"pattern": f"^{VARIABLE_NAME.pattern}$"},
                "additionalProperties": {"type": "string", "maxLength": MAX_VALUE_BYTES, "pattern": _NO_NUL},
            },
            json_type=dict[str, str],
            example={"VERBOSE": "1", "API_TOKEN": "[REDACTED]"},
        ),
        dict,
        is_secret=True,
    )
    secret_env_vars: tuple[str, ...] = _field(
        About(
            help=(
                "Names of variables of the job and its services whose values are secret: empty, or at least "
                f"{MIN_SECRET_CHARS} characters. By default those whose names look like secrets."
            ),
            schema={"items": {"type": "string", "pattern": f"^{VARIABLE_NAME.pattern}$"}},
            json_type=list[str],
            json_default=None,
            example=["API_TOKEN"],
        ),
        (),
    )
    """Names of variables, of the job and of its services, whose values are never shown again."""
    queue_name: str = _field(
        About(
            limits={"pattern": r"^[A-Za-z0-9._-]{1,128}$"},
            title="Queue",
            option=Option(name="--queue", help="Queue to wait in."),
            example="default",
        ),
        "default",
    )
    timeout_seconds: int = _field(
        About(
            limits={"ge": 1, "le": 604_800},
            answer_schema=_COUNT,
            title="Timeout, s",
            option=Option(name="--timeout", metavar="SECONDS", help="Time limit of one run."),
            example=600,
        ),
        3600,
    )
    priority: int = _field(
        About(
            limits={"ge": -(2**31), "le": 2**31 - 1},
            title="Priority",
            option=Option(name="--priority", help="Jobs with a higher priority run first."),
            example=0,
        ),
        0,
    )
    code_dir: str = _field(
        About(
            help="Directory of the source in the container.",
            schema={"maxLength": 4096, "pattern": _CODE_DIR},
            title="Code directory",
            option=Option(name="--code-dir", help="Directory of the source in the container."),
            example="/job/src",
        ),
        "/job/src",
    )
    job_dir: str = _field(
        About(
            help="Working directory of the command; by default `code_dir`.",
            schema={"maxLength": 4096, "pattern": _JOB_DIR},
            json_default=None,
            title="Job directory",
            option=Option(
                name="--job-dir",
                help="Working directory of the command in the container; by default --code-dir.",
            ),
            example="/job/src",
        ),
        "/job/src",
    )
    cpu_limit: float | None = _field(
        About(
            limits={"ge": 0.01, "le": 1024, "allow_inf_nan": False},
            answer_schema=_COUNT,
            title="CPUs",
            option=Option(name="--cpu-limit", metavar="CPUS", help="CPU limit of the container."),
            example=2.0,
        ),
        None,
    )
    memory_limit_bytes: int | None = _field(
        About(
            help="Bytes, or like `512m`, `2g`; at least `6m`.",
            schema={
                "anyOf": [
                    {"type": "integer", "minimum": MIN_MEMORY_BYTES, "maximum": 2**63 - 1},
                    {"type": "string", "pattern": f"^(?:{sizes.PATTERN})$"},
                    {"type": "null"},
                ]
            },
            answer_schema=_COUNT,
            json_name="memory_limit",
            request_type=int | str,
            title="Memory, B",
            option=Option(
                name="--memory-limit",
                metavar="SIZE",
                help="Memory limit of the container, in bytes or like 512m, 2g.",
            ),
            example=536_870_912,
        ),
        None,
    )
    retries: int = _field(
        About(
            help="Maximum number of further runs after the command failed, timed out or was lost.",
            limits={"ge": 0, "le": 10},
            answer_schema=_COUNT,
            option=Option(
                name="--retries",
                help="Maximum number of further runs after the command failed, timed out or was lost.",
            ),
            example=1,
        ),
        0,
    )
    artifacts: Sequence[str] | None = _field(
        About(
            help="Globs of the files in `/job/artifacts` to keep: `*` within a name, `**` any directories.",
            limits={"max_length": 100},
            item_limits={"min_length": 1, "max_length": 1024},
            item_schema={"pattern": _GLOB},
            json_type=list[str],
            example=["**/*.xml"],
        ),
        None,
    )
    """Globs of the artifacts to keep; ``None`` keeps all."""
    services: Mapping[str, JobService] | None = _field(
        About(
            help=(
                "Containers that run beside the job in its network, by host name; the command starts when "
                "all are ready. `command` and `ready` (a script) replace those of the image."
            ),
            schema=services.SCHEMA,
            json_type=dict[str, dict[str, Any]],
            example={
                "db": {
                    "image": "postgres:17",
                    "environment": {"POSTGRES_PASSWORD": "[REDACTED]"},
                    "command": None,
                    "ready": "pg_isready -U postgres",
                    "ready_timeout": 60,
                }
            },
        ),
        None,
    )
    masked: tuple[str, ...] = field(default=(), repr=False)
    """Further values that are masked wherever the job prints them; no field of the API."""


def _job_field(item: Field[Any], hint: Any) -> JobField:
    kinds = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    (kind,) = (kind for kind in kinds if kind is not NoneType)
    default = ... if item.default is MISSING else item.default
    if item.default_factory is not MISSING:
        default = item.default_factory()
    about: About = item.metadata["about"]
    return JobField(item.name, about.json_name or item.name, kind, default, about)


def _job_fields() -> tuple[JobField, ...]:
    hints = get_type_hints(JobDefinition)
    return tuple(
        _job_field(item, hints[item.name]) for item in fields(JobDefinition) if "about" in item.metadata
    )


JOB_FIELDS = _job_fields()
"""Every field of a job's definition, in the order in which it is shown."""
