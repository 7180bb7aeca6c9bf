"""The keys of workflow and job files: one table, for reading and for the JSON Schema."""

from dataclasses import dataclass
from typing import Any, ClassVar

from reactorcide.domain.definition import (
    JOB_FIELDS,
    MAX_COMMAND_BYTES,
    MAX_DESCRIPTION_BYTES,
    MAX_VALUE_BYTES,
    MAX_VARIABLES,
    VARIABLE_NAME,
)
from reactorcide.workflows.events import ANY_EVENT, ANY_PATHS, SHORT_NAMES, EventName, Paths, Trigger
from reactorcide.workflows.kinds import (
    CPUS,
    FLAG,
    LIMITS,
    MEMORY,
    Choice,
    Glob,
    Image,
    Key,
    Kind,
    ListOf,
    MapOf,
    Object,
    Reader,
    Schema,
    Templated,
    Text,
    duration,
    glob_problem,
    whole,
)
from reactorcide.workflows.matrix import ItemsKind, MatrixKind
from reactorcide.workflows.model import Cache, Concurrency, Condition, RunLocal, Service, WhenFull
from reactorcide.workflows.nodes import Mapping, Node, Scalar, Sequence
from reactorcide.workflows.problems import shown
from reactorcide.workflows.references import Template

JOB_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_. -]{0,98}[A-Za-z0-9_-])?"
JOB_NAME_LIKE = "a job's name: up to 100 letters, digits, '_', '-', '.' and spaces"
MAX_JOBS = 500

_NAMES_OF_JOBS = ListOf(Text(JOB_NAME, JOB_NAME_LIKE, max_bytes=100, has_references=False), most=MAX_JOBS)
_VARIABLE = VARIABLE_NAME.pattern
_SCHEMAS = {field.name: field.about.schema for field in JOB_FIELDS}
_IN_CONTAINER = "an absolute path in the container, without '..', apart from / and /job/artifacts"
_CODE_DIR = Text(_SCHEMAS["code_dir"]["pattern"], _IN_CONTAINER, 4096)
_JOB_DIR = Text(_SCHEMAS["job_dir"]["pattern"], _IN_CONTAINER, 4096)
_GLOBS = ListOf(Glob())
_SCRIPT = Text(max_bytes=MAX_COMMAND_BYTES, has_references=False)
_DAY_S = 86_400
_NO_TEXT = Template()

ENVIRONMENT = MapOf(Templated(), _VARIABLE, "a name for a variable", most=MAX_VARIABLES)
VARS = MapOf(
    Text(max_bytes=MAX_VALUE_BYTES, has_references=False),
    r"[A-Za-z_][A-Za-z0-9_-]*",
    "a name for a value",
    most=1000,
)
ID = Text(
    r"[a-z0-9][a-z0-9-]{0,62}", "an id: up to 63 lower-case letters, digits and '-'", has_references=False
)
NAME = Text(r"[^\x00-\x1f\x7f]+", "a name: it is empty, or has control characters", has_references=False)
DESCRIPTION = Text(max_bytes=MAX_DESCRIPTION_BYTES, has_references=False)


class TriggerKind(Kind[Trigger]):
    """The name of an event, a list of such names, or a mapping of ``events``, ``branches`` and ``tags``."""

    def __init__(self, *, needs_events: bool) -> None:
        names = (*EventName, *SHORT_NAMES)
        self._events = ListOf(Choice(tuple(map(str, names))))
        self._mapping = Object(
            what="on",
            make=_trigger,
            keys=(
                Key(("events",), self._events, "What starts it.", is_required=needs_events),
                Key(("branches",), _GLOBS, "Globs on the branch, the base of a pull request, or a tag."),
                Key(("tags",), _GLOBS, "Globs on tags, in place of `branches`."),
            ),
            refused={str(name): "write events: [" + str(name) + "]" for name in names}
            | {"branches-ignore": "write branches, with what is to match"},
        )

    def read(self, node: Node, key: str, reader: Reader) -> Trigger | None:
        if isinstance(node, Scalar | Sequence):
            events = self._events.read(node, key, reader)
            trigger = None if events is None else _trigger(events=events)
        else:
            trigger = self._mapping.read(node, key, reader)
        if trigger is None:
            return None
        if trigger.events == ():
            reader.error(node.place, f"{key} has no events, so that it would never start")
        if (
            trigger.tags is not None
            and trigger.events is not None
            and EventName.TAG_CREATED not in trigger.events
        ):
            reader.error(node.place, f"{key}: tags need the event tag_created among the events")
        return trigger

    def schema(self) -> Schema:
        return {"anyOf": [self._events.schema(), self._mapping.schema()]}


def _trigger(
    events: tuple[str, ...] | None = None,
    branches: tuple[str, ...] | None = None,
    tags: tuple[str, ...] | None = None,
) -> Trigger:
    if events is None:
        return Trigger(None, branches, tags)
    named = [SHORT_NAMES.get(name) or (EventName(name),) for name in events]
    return Trigger(tuple(dict.fromkeys(event for group in named for event in group)), branches, tags)


PATHS = Object(
    what="paths",
    make=Paths,
    keys=(
        Key(("include",), _GLOBS, "Globs; at least one changed file has to match one of them."),
        Key(("exclude",), _GLOBS, "Globs of changed files that do not count."),
    ),
)


def concurrency(*sources: Any) -> Object[Concurrency]:
    """Return the kind of a concurrency group whose name may have these references."""
    return Object(
        what="concurrency",
        make=lambda group=_NO_TEXT, when_full=WhenFull.QUEUE: Concurrency(group, WhenFull(when_full)),
        keys=(
            Key(
                ("group",),
                Templated(sources, max_bytes=255),
                "One of a group runs at a time.",
                is_required=True,
            ),
            Key(("when_full",), Choice(tuple(WhenFull)), "Who ends or waits where the group is taken."),
        ),
        refused={"cancel-in-progress": "write when_full: replace"},
    )


_SERVICE = Object(
    what="a service",
    make=lambda image=_NO_TEXT, environment=None, command=None, ready=None, ready_timeout=60: Service(
        image, environment or {}, command, ready, ready_timeout
    ),
    keys=(
        Key(("image",), Image(("vars", "matrix", "event")), "Its image.", is_required=True),
        Key(("environment", "env"), ENVIRONMENT, "Its variables."),
        Key(("command",), _SCRIPT, "In place of the image's own command."),
        Key(
            ("ready",), _SCRIPT, "A command that succeeds once it can be used; else the image's health check."
        ),
        Key(("ready_timeout",), duration(_DAY_S), "How long it may take to be ready; 60s."),
    ),
    refused={"ports": "a service is reached by its name, on any port", "healthcheck": "write ready: COMMAND"},
)


class _CacheKey(Templated):
    """A text, or ``file:GLOB``."""

    def read(self, node: Node, key: str, reader: Reader) -> Template | None:
        template = super().read(node, key, reader)
        if template is not None and not template.references:
            prefix, _, glob = str(template).partition("file:")
            if glob and not prefix and (problem := glob_problem(glob)):
                reader.error(node.place, f"{key}: the glob {shown(glob)} {problem}")
                return None
        return template


_CACHE = Object(
    what="a cache",
    make=lambda key=(), paths=(), restore_keys=(): Cache(key, paths, restore_keys),
    keys=(
        Key(
            ("key",),
            ListOf(_CacheKey(("vars", "matrix", "event"), max_bytes=1024)),
            "Texts, and `file:GLOB` for a hash of files.",
            is_required=True,
        ),
        Key(("paths",), ListOf(Text(max_bytes=4096)), "What is kept.", is_required=True),
        Key(
            ("restore_keys",),
            ListOf(Templated(("vars", "matrix", "event"), max_bytes=1024)),
            "Beginnings of other keys, tried in turn.",
        ),
    ),
    refused={"restore-keys": "write restore_keys", "path": "write paths"},
)

_CPU = Object(
    what="resources.cpu",
    make=lambda limit=None: limit,
    keys=(Key(("limit",), CPUS, "Processors that it may use."),),
    ignored={"request": "means nothing here: only limits count"},
)
_MEMORY = Object(
    what="resources.memory",
    make=lambda limit=None: limit,
    keys=(Key(("limit",), MEMORY, "Memory that it may use."),),
    ignored={"request": "means nothing here: only limits count"},
)
_RESOURCES = Object(
    what="resources",
    make=lambda cpu=None, memory=None: (cpu, memory),
    keys=(Key(("cpu",), _CPU, "Processors."), Key(("memory",), _MEMORY, "Memory.")),
)


class _Capabilities(Kind[bool]):
    """``builder``, to build images; tells whether it is there."""

    _REFUSED: ClassVar = {
        "docker": "cannot be had: a job never gets the engine's socket; to build images, use builder",
        "gpu": "cannot be had here",
    }
    _names = ListOf(Choice(("builder", *_REFUSED)))

    def read(self, node: Node, key: str, reader: Reader) -> bool | None:
        names = self._names.read(node, key, reader) or ()
        for name in names:
            if name in self._REFUSED:
                reader.error(node.place, f"{key}: {name} {self._REFUSED[name]}")
        return "builder" in names

    def schema(self) -> Schema:
        return ListOf(Choice(("builder",))).schema()


class _RunAs(Kind[None]):
    """The original's user of a container."""

    def read(self, node: Node, key: str, reader: Reader) -> None:
        user = node.entries.get("user") if isinstance(node, Mapping) else None
        if user is not None and isinstance(user[1], Scalar) and user[1].text in ("root", "0", "0:0"):
            reader.problems.warn(node.place, f"{key} is ignored: a job runs as the user of its image")
        else:
            reader.error(
                node.place,
                f"{key}: this user cannot be had, a job runs as the user of its image; leave it out",
            )

    def schema(self) -> Schema:
        return {"type": "object", "deprecated": True}


_RUN_LOCAL = Object(
    what="run_local",
    make=lambda user=None, as_runner=False: RunLocal(user or ("runner" if as_runner else None)),
    keys=(
        Key(
            ("user",),
            Text(r"(?:host|root|runner|[0-9]+(?::[0-9]+)?)", "host, root, runner or uid[:gid]"),
            "The user.",
        ),
        Key(("as_runner",), FLAG, "The same as `user: runner`."),
    ),
)

JOB: Object[dict[str, Any]] = Object(
    what="a job",
    make=dict,
    keys=(
        Key(("description",), DESCRIPTION, "What it is for."),
        Key(
            ("image",),
            Image(("vars", "matrix", "event", "needs", "env")),
            "The container's image; the project's or service's default.",
        ),
        Key(("command", "run"), _SCRIPT, "A script. `${…}` in it is the shell's."),
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
            Text(_VARIABLE, "a name for a variable"),
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
                _SERVICE,
                r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?",
                "a host name of lower-case letters, digits, '-'",
                20,
            ),
            "Containers beside it, each reached by its name.",
        ),
        Key(("cache",), ListOf(_CACHE, most=20), "What is kept from one run to the next."),
        Key(("artifacts",), _GLOBS, "Globs of the files in /job/artifacts that are kept; all."),
        Key(("artifacts_from",), _NAMES_OF_JOBS, "Needed jobs whose artifacts are put below /job/needs."),
        Key(("resources",), _RESOURCES, "Limits."),
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
        Key(("capabilities",), _Capabilities(), "`builder`, to build images.", field="needs_builder"),
        Key(("disable_run_local",), FLAG, "Whether a local run refuses it."),
        Key(("run_local",), _RUN_LOCAL, "What counts in a local run alone."),
        Key(("run_as",), _RunAs(), "Means nothing here: a job runs as the user of its image."),
    ),
    ignored={
        "image_pull_secrets": "means nothing here: logins are the operator's",
        "worker_class": "means nothing here: any worker may take it",
        "characteristics": "means nothing here: any worker may take it",
        "raw_command": "means nothing here: every command runs as it is written",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The keys of a workflow file but for its jobs."""

    name: str = ""
    id: str | None = None
    description: str = ""
    trigger: Trigger = ANY_EVENT
    paths: Paths = ANY_PATHS
    concurrency: Concurrency | None = None


class _Jobs(Kind[None]):
    """The jobs, which are read one by one: here for the schema alone."""

    def read(self, node: Node, key: str, reader: Reader) -> None:
        return None

    def schema(self) -> Schema:
        job = {"$ref": "#/$defs/job"}
        by_name = {"type": "object", "additionalProperties": job, "maxProperties": MAX_JOBS}
        listed = {"type": "array", "items": job, "maxItems": MAX_JOBS}
        return {"anyOf": [by_name, listed]}


WORKFLOW = Object(
    what="a workflow",
    make=Header,
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


_NAME_OF_JOB = Text(JOB_NAME, JOB_NAME_LIKE, max_bytes=100, has_references=False)


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
