"""The keys of workflow and job files: one table, for reading and for the JSON Schema."""

from typing import Any

from reactorcide.domain import services
from reactorcide.domain.definition import JOB_FIELDS, MAX_DESCRIPTION_BYTES
from reactorcide.domain.variables import MAX_VALUE_BYTES
from reactorcide.workflows.kinds import Key, Kind, ListOf, MapOf, Object, Reader, Schema
from reactorcide.workflows.matrix import ItemsKind, MatrixKind
from reactorcide.workflows.model import Condition
from reactorcide.workflows.nodes import Node
from reactorcide.workflows.parts import (
    CACHE,
    ENVIRONMENT,
    GLOBS,
    IMAGE,
    PATHS,
    RESOURCES,
    RUN_LOCAL,
    SCRIPT,
    SERVICE,
    VARIABLE,
    Capabilities,
    RunAs,
    TriggerKind,
    concurrency,
)
from reactorcide.workflows.scalars import CPUS, FLAG, LIMITS, MEMORY, Choice, Text, duration, whole

JOB_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_. -]{0,98}[A-Za-z0-9_-])?"
JOB_NAME_LIKE = "a job's name: up to 100 letters, digits, '_', '-', '.' and spaces"
MAX_JOBS = 500

_NAME_OF_JOB = Text(JOB_NAME, JOB_NAME_LIKE, max_bytes=100, has_references=False)
_NAMES_OF_JOBS = ListOf(_NAME_OF_JOB, max_items=MAX_JOBS)
_SCHEMAS = {field.name: field.about.schema for field in JOB_FIELDS}
_IN_CONTAINER = "an absolute path in the container, without '..', apart from / and /job/artifacts"
_CODE_DIR = Text(_SCHEMAS["code_dir"]["pattern"], _IN_CONTAINER, 4096)
_JOB_DIR = Text(_SCHEMAS["job_dir"]["pattern"], _IN_CONTAINER, 4096)

VARS = MapOf(
    Text(max_bytes=MAX_VALUE_BYTES, has_references=False),
    r"[A-Za-z_][A-Za-z0-9_-]*",
    "a name for a value",
    max_items=1000,
)
ID = Text(
    r"[a-z0-9][a-z0-9-]{0,62}", "an id: up to 63 lower-case letters, digits and '-'", has_references=False
)
NAME = Text(r"[^\x00-\x1f\x7f]+", "a name: it is empty, or has control characters", has_references=False)
DESCRIPTION = Text(max_bytes=MAX_DESCRIPTION_BYTES, has_references=False)


JOB: Object[dict[str, Any]] = Object(
    what="a job",
    make=dict,
    keys=(
        Key(("description",), DESCRIPTION, "What it is for."),
        Key(
            ("image",),
            IMAGE,
            "The container's image; the project's or service's default.",
        ),
        Key(("command", "run"), SCRIPT, "A script. `${…}` in it is the shell's."),
        Key(("shell",), Choice(("sh", "bash")), "What runs it: `sh -e`, or `bash -eo pipefail`."),
        Key(("environment", "env"), ENVIRONMENT, "Its variables."),
        Key(("needs", "depends_on"), _NAMES_OF_JOBS, "The jobs that have to be over before it starts."),
        Key(
            ("condition",),
            Choice(
                tuple(Condition),
                {
                    "always()": "always",
                    "all_success(needs)": "all_success",
                    "any_failed(needs)": "any_failed",
                },
            ),
            "What has to have become of the jobs that it needs.",
        ),
        Key(("matrix",), MatrixKind(), "One job for each combination of values."),
        Key(("for_each",), ItemsKind(), "A matrix of one axis."),
        Key(
            ("item_var",),
            Text(VARIABLE, "a name for a variable"),
            "The variable that has the value of `for_each`.",
        ),
        Key(
            ("timeout", "timeout_seconds"),
            duration(LIMITS["timeout_seconds"]["le"]),
            "Seconds, or like `90s`, `20m`, `2h`.",
            field="timeout_s",
        ),
        Key(
            ("retries",),
            whole(LIMITS["retries"]["ge"], LIMITS["retries"]["le"]),
            "How often it is run again after it failed.",
        ),
        Key(("priority",), whole(LIMITS["priority"]["ge"], LIMITS["priority"]["le"]), "Higher goes first."),
        Key(
            ("queue",),
            Text(
                LIMITS["queue_name"]["pattern"].strip("^$"),
                "a queue's name: letters, digits, '.', '_' and '-'",
            ),
            "Its queue.",
        ),
        Key(("allow_failure",), FLAG, "Where it fails, the run and those who need it go on."),
        Key(
            ("services",),
            MapOf(
                SERVICE,
                rf"(?!localhost$){services.NAME.pattern}",
                services.NAME_LIKE,
                services.MAX_SERVICES,
            ),
            "Containers beside it, each reached by its name.",
        ),
        Key(("cache",), ListOf(CACHE, max_items=20), "What is kept from one run to the next."),
        Key(("artifacts",), GLOBS, "Globs of the files in /job/artifacts that are kept; all."),
        Key(("artifacts_from",), _NAMES_OF_JOBS, "Needed jobs whose artifacts are put below /job/needs."),
        Key(("resources",), RESOURCES, "Limits."),
        Key(("cpu_limit",), CPUS, "The same as `resources.cpu.limit`."),
        Key(("memory_limit",), MEMORY, "The same as `resources.memory.limit`.", field="memory_limit_bytes"),
        Key(("code_dir",), _CODE_DIR, "Where the source lies."),
        Key(("job_dir", "working_dir"), _JOB_DIR, "Where the command runs."),
        Key(("checkout",), FLAG, "Whether it gets the source; true."),
        Key(("submodules",), FLAG, "Whether submodules are fetched as well."),
        Key(
            ("on", "triggers"),
            TriggerKind(needs_events=False),
            "Some of the workflow's events.",
            field="trigger",
        ),
        Key(("paths",), PATHS, "The changed files that it is for."),
        Key(
            ("concurrency",),
            concurrency("vars", "matrix", "event"),
            "A group of which one job runs at a time.",
        ),
        Key(("capabilities",), Capabilities(), "`builder`, to build images.", field="needs_builder"),
        Key(("disable_run_local",), FLAG, "Whether a local run refuses it."),
        Key(("run_local",), RUN_LOCAL, "What counts in a local run alone."),
        Key(("run_as",), RunAs(), "Means nothing here: a job runs as the user of its image."),
    ),
    ignored={
        "image_pull_secrets": "means nothing here: logins are the operator's",
        "worker_class": "means nothing here: any worker may take it",
        "characteristics": "means nothing here: any worker may take it",
        "raw_command": "means nothing here: every command runs as it is written, and has the source in "
        "code_dir; one that clones it there needs checkout: false",
        "source": "means nothing here: a job gets the source of its run; without one: checkout: false",
    },
    refused={
        "steps": "write one command for all steps",
        "commands": "write one command, of several lines",
        "runs-on": "write image, and queue where it matters",
        "container": "write image",
        "strategy": "write matrix",
        "if": "write on, paths or condition",
        "when": "write on, paths or condition",
        "timeout-minutes": "write timeout: 20m",
        "continue-on-error": "write allow_failure: true",
        "command_prefix": "write shell: bash",
        "outputs": "a job writes KEY=VALUE lines to the file $REACTORCIDE_OUTPUT",
    },
)


class _Jobs(Kind[None]):
    """The jobs, which are read one by one: here for the schema alone."""

    def read(self, node: Node, key: str, reader: Reader) -> None:
        return None

    def schema(self) -> Schema:
        job = {"$ref": "#/$defs/job"}
        by_name = {"type": "object", "additionalProperties": job, "maxProperties": MAX_JOBS}
        listed = {"type": "array", "items": job, "maxItems": MAX_JOBS}
        return {"anyOf": [by_name, listed]}


WORKFLOW: Object[dict[str, Any]] = Object(
    what="a workflow",
    make=dict,
    keys=(
        Key(("name",), NAME, "What it is called.", is_required=True),
        Key(("id",), ID, "What it is known by; from the file's name where left out."),
        Key(("description",), DESCRIPTION, "What it is for."),
        Key(
            ("on", "triggers"),
            TriggerKind(needs_events=True),
            "The events that start it.",
            is_required=True,
            field="trigger",
        ),
        Key(("paths",), PATHS, "The changed files that it is for."),
        Key(("environment", "env"), ENVIRONMENT, "Variables of all jobs."),
        Key(("vars",), VARS, "Values for `${vars.…}`."),
        Key(("concurrency",), concurrency("vars", "event"), "A group of which one run goes at a time."),
        Key(("jobs",), _Jobs(), "The jobs, by name.", is_required=True),
    ),
)


class _Anything(Kind[Node]):
    """A value that is read elsewhere."""

    def read(self, node: Node, key: str, reader: Reader) -> Node:
        return node

    def schema(self) -> Schema:
        return {}


_AROUND = (
    Key(("name",), _NAME_OF_JOB, "Its name, where jobs are a list."),
    Key(("job",), _Anything(), "Keys of the job; the same as beside it."),
)
ENTRY: Object[dict[str, Any]] = Object(
    what="a job",
    make=dict,
    keys=(*_AROUND, Key(("job_file",), Text(), "A file of .reactorcide/jobs with other keys."), *JOB.keys),
    ignored=JOB.ignored,
    refused=JOB.refused,
)
"""A job in a workflow."""
JOB_FILE: Object[dict[str, Any]] = Object(
    what="a job file", make=dict, keys=(*_AROUND, *JOB.keys), ignored=JOB.ignored, refused=JOB.refused
)
"""A file of ``jobs/``; its ``on`` is a workflow's."""


def schema() -> Schema:
    """Return the JSON Schema of workflow files."""
    job = ENTRY.schema()
    # A list of properties beside a reference would be asked for both.
    job["properties"]["job"]["$ref"] = "#/$defs/job"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Reactorcide workflow",
        **WORKFLOW.schema(),
        "$defs": {"job": job},
    }
