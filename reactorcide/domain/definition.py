"""What a client asks for: each field of a job, declared once.

The columns of a job's row, the API's requests, answers and document, the options of ``reactorcide submit``
and the lines of ``reactorcide jobs show`` come from this declaration.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from reactorcide.domain import images
from reactorcide.domain.fields import About, JobField, Option, SourceType
from reactorcide.lib import sizes

MAX_COMMAND_BYTES = 100 << 10
MAX_DESCRIPTION_BYTES = 64 << 10
MAX_VARIABLES = 1000
MAX_VALUE_BYTES = 32 << 10
MAX_EXEC_BYTES = 1 << 20
"""The command and all variables, as a kernel takes them to start a program."""
MIN_MEMORY_BYTES = 6 << 20
MIN_SECRET_CHARS = 4
"""A shorter value is not replaced in logs, which that would make unreadable."""
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

# What code checks, for its own sentence, the document says as a pattern: a regular expression of ECMA-262
# with its flag "u", as JSON Schema has it. Printable is what str.isprintable says is, without the space.
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
_SHA256 = r"^[0-9a-f]{64}$"
_COUNT = {"minimum": 0}


def _field(about: About, default: Any = MISSING, *, is_secret: bool = False) -> Any:
    if callable(default):
        return field(default_factory=default, repr=not is_secret, metadata={"about": about})
    return field(default=default, repr=not is_secret, metadata={"about": about})


# Each default is made by a call that carries the declaration with it.
# ruff: noqa: RUF009
@dataclass(frozen=True, slots=True, kw_only=True)
class JobDefinition:
    """What a client asked for, with every default filled in; a rerun has the same one."""

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
            help="Branch, tag, full ref or commit; remote HEAD.",
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
            help="Whether submodules are fetched as well; true.",
            source_type="git",
            json_default=True,
            title="Submodules",
            option=Option(
                name="--submodules", help="Whether its submodules are fetched as well; they are by default."
            ),
            example=True,
        ),
        False,
    )
    git_depth: int = _field(
        About(
            help="For `git`: commits of the history that are fetched; 1, and 0 means all.",
            limits={"ge": 0, "le": 2**31 - 1},
            answer_schema=_COUNT,
            source_type="git",
            title="History, commits",
            option=Option(
                name="--git-depth",
                metavar="COMMITS",
                help="Commits of its history that are fetched; 1 by default, 0 is all.",
            ),
            example=1,
        ),
        1,
    )
    git_tags: bool = _field(
        About(
            help="For `git`: whether all tags are fetched as well; false.",
            source_type="git",
            title="All tags",
            option=Option(
                name="--git-tags",
                help="Whether all its tags are fetched as well, as git describe needs; "
                "they are not by default.",
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
            help="In place of `source_path`: what an upload answered.",
            limits={"pattern": _SHA256},
            answer_schema={"pattern": _SHA256},
            source_type="copy",
            title="Uploaded source",
        ),
        None,
    )
    source_job_id: str | None = _field(
        About(
            help="In place of `source_path`: a job whose artifacts are copied.",
            schema={"format": "uuid", "pattern": _ID},
            answer_schema={"format": "uuid"},
            source_type="copy",
            title="Source job",
        ),
        None,
    )
    runner_image: str = _field(
        About(
            help="`[host[:port]/]name[:tag][@digest]`; the service's default image.",
            limits={"min_length": 1, "max_length": 255},
            schema={"pattern": f"^(?:{images.PATTERN})$"},
            json_default=None,
            title="Image",
            option=Option(name="--image", help="Image to run in; the service's default, if none is named."),
            example="python:3.13-alpine",
        )
    )
    job_env_vars: Mapping[str, str] = _field(
        About(
            help="Values have at most 32 KiB as UTF-8; with `job_command`, all stay below 1 MiB.",
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
                "Names among `job_env_vars` with secret values, which are empty or have at least "
                f"{MIN_SECRET_CHARS} characters; those that look it."
            ),
            schema={"items": {"type": "string", "pattern": f"^{VARIABLE_NAME.pattern}$"}},
            json_type=list[str],
            json_default=None,
            example=["API_TOKEN"],
        ),
        (),
    )
    """Names among ``job_env_vars`` whose values are never shown again."""
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
            option=Option(name="--timeout", metavar="SECONDS", help="Longest time that it may run."),
            example=600,
        ),
        3600,
    )
    priority: int = _field(
        About(
            limits={"ge": -(2**31), "le": 2**31 - 1},
            title="Priority",
            option=Option(name="--priority", help="Higher ones run first."),
            example=0,
        ),
        0,
    )
    code_dir: str = _field(
        About(
            help="Where the source lies in the container.",
            schema={"maxLength": 4096, "pattern": _CODE_DIR},
            title="Code directory",
            option=Option(name="--code-dir", help="Where the source goes in the container."),
            example="/job/src",
        ),
        "/job/src",
    )
    job_dir: str = _field(
        About(
            help="Like `code_dir` where it is left out.",
            schema={"maxLength": 4096, "pattern": _JOB_DIR},
            json_default=None,
            title="Job directory",
            option=Option(name="--job-dir", help="Where the command runs in the container."),
            example="/job/src",
        ),
        "/job/src",
    )
    cpu_limit: float | None = _field(
        About(
            limits={"ge": 0.01, "le": 1024, "allow_inf_nan": False},
            answer_schema=_COUNT,
            title="CPUs",
            option=Option(name="--cpu-limit", metavar="CPUS", help="CPUs that it may use."),
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
                help="Memory that it may use: bytes, or like 512m, 2g.",
            ),
            example=536_870_912,
        ),
        None,
    )
    retries: int = _field(
        About(
            help="Runs again after the command failed, timed out or was lost.",
            limits={"ge": 0, "le": 10},
            answer_schema=_COUNT,
            option=Option(
                name="--retries", help="Runs again after the command failed, timed out or was lost."
            ),
            example=1,
        ),
        0,
    )
    artifacts: Sequence[str] | None = _field(
        About(
            help="Globs of what is kept of `/job/artifacts`: `*` within a name, `**` for any directories.",
            limits={"max_length": 100},
            item_limits={"min_length": 1, "max_length": 1024},
            item_schema={"pattern": _GLOB},
            json_type=list[str],
            example=["**/*.xml"],
        ),
        None,
    )
    """Globs of what is kept; ``None`` keeps all."""


def _job_field(item: Field[Any], hint: Any) -> JobField:
    kinds = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    (kind,) = (kind for kind in kinds if kind is not NoneType)
    default = ... if item.default is MISSING else item.default
    if item.default_factory is not MISSING:
        default = item.default_factory()
    return JobField(item.name, kind, default, item.metadata["about"])


def _job_fields() -> tuple[JobField, ...]:
    hints = get_type_hints(JobDefinition)
    return tuple(_job_field(item, hints[item.name]) for item in fields(JobDefinition))


JOB_FIELDS = _job_fields()
"""Every field of a job's definition, in the order in which it is shown."""
