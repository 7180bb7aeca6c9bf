"""The kinds of what is nested in a job or a workflow: its trigger, services, caches, limits, …"""

from typing import Any, ClassVar

from reactorcide.domain import services
from reactorcide.domain.caches import FILE_PREFIX, MAX_KEY_BYTES
from reactorcide.domain.definition import MAX_COMMAND_BYTES, MAX_VARIABLES
from reactorcide.domain.events import EventName
from reactorcide.domain.variables import VARIABLE_NAME
from reactorcide.workflows.events import SHORT_NAMES, Paths, Trigger
from reactorcide.workflows.kinds import Key, Kind, ListOf, MapOf, Object, Reader, Schema
from reactorcide.workflows.model import Cache, Concurrency, RunLocal, Service, WhenFull
from reactorcide.workflows.nodes import Mapping, Node, Scalar, Sequence
from reactorcide.workflows.problems import quoted
from reactorcide.workflows.references import Template
from reactorcide.workflows.scalars import (
    CPUS,
    FLAG,
    MEMORY,
    Choice,
    Glob,
    Image,
    Templated,
    Text,
    duration,
    glob_problem,
)

GLOBS = ListOf(Glob())
SCRIPT = Text(max_bytes=MAX_COMMAND_BYTES, has_references=False)
VARIABLE = VARIABLE_NAME.pattern


def _environment(max_items: int) -> MapOf[Template]:
    return MapOf(Templated(), VARIABLE, "a name for a variable", max_items=max_items)


ENVIRONMENT = _environment(MAX_VARIABLES)
IMAGE = Image(("vars", "matrix", "event", "needs", "env"))
_NO_TEXT = Template()


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
                Key(("branches",), GLOBS, "Globs on the branch, the base of a pull request, or a tag."),
                Key(("tags",), GLOBS, "Globs on tags, in place of `branches`."),
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
        Key(("include",), GLOBS, "Globs; at least one changed file has to match one of them."),
        Key(("exclude",), GLOBS, "Globs of changed files that do not count."),
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


class _Words(Text):
    """A command as words, quoted as in a shell, that no shell runs."""

    def read(self, node: Node, key: str, reader: Reader) -> str | None:
        text = super().read(node, key, reader)
        if text is not None and (problem := services.command_problem(text)):
            reader.error(node.place, f"{key}: {quoted(text)} {problem}")
            return None
        return text


_SERVICE_SCRIPT_BYTES = services.MAX_SCRIPT_BYTES
SERVICE = Object(
    what="a service",
    make=lambda image=_NO_TEXT, environment=None, **rest: Service(image, environment or {}, **rest),
    keys=(
        Key(("image",), IMAGE, "Its image.", is_required=True),
        Key(("environment", "env"), _environment(services.MAX_VARIABLES), "Its variables."),
        Key(
            ("command",),
            _Words(max_bytes=_SERVICE_SCRIPT_BYTES, has_references=False),
            "Words in place of the image's own command, for its entrypoint; `sh -c '…'` for a script.",
        ),
        Key(
            ("ready",),
            Text(max_bytes=_SERVICE_SCRIPT_BYTES, has_references=False),
            "A script that succeeds once it can be used; else the image's health check.",
        ),
        Key(
            ("ready_timeout",),
            duration(services.MAX_READY_TIMEOUT_S),
            "How long it may take to be ready; 60s.",
            field="ready_timeout_s",
        ),
    ),
    refused={"ports": "a service is reached by its name, on any port", "healthcheck": "write ready: COMMAND"},
)


class _CacheKey(Templated):
    """A text, or ``file:GLOB``."""

    def read(self, node: Node, key: str, reader: Reader) -> Template | None:
        template = super().read(node, key, reader)
        if template is None or template.references:
            return template
        text = template.fill(str)
        if not text.isprintable():
            reader.error(node.place, f"{key}: {quoted(text)} has line breaks or control characters")
            return None
        if text.startswith(FILE_PREFIX) and (problem := glob_problem(text.removeprefix(FILE_PREFIX))):
            reader.error(node.place, f"{key}: the glob {quoted(text.removeprefix(FILE_PREFIX))} {problem}")
            return None
        return template


class _CachePath(Text):
    """A path in the container."""

    def read(self, node: Node, key: str, reader: Reader) -> str | None:
        path = super().read(node, key, reader)
        if path is not None and (problem := _cache_path_problem(path)):
            reader.error(node.place, f"{key}: {quoted(path)} {problem}")
            return None
        return path


def _cache_path_problem(path: str) -> str | None:
    """Return in a phrase why what is at a path cannot be cached; ``None`` if it can."""
    names = [name for name in path.split("/") if name]
    if not names:
        return "names no file or directory"
    if names[0].startswith("~"):
        return "begins with ~, which only a shell knows; write the directory, like /root/.cache"
    if {".", ".."} & set(names):
        return "has '.' or '..'; write the path without them"
    if any(character in path for character in "*?["):
        return "is a glob; write the directory that the files are in"
    if path.startswith("/") and (names[0] in ("dev", "proc", "sys") or names[:2] == ["job", "artifacts"]):
        return "cannot be cached"
    return None


CACHE = Object(
    what="a cache",
    make=lambda key=(), paths=(), restore_keys=(): Cache(key, paths, restore_keys),
    keys=(
        Key(
            ("key",),
            ListOf(_CacheKey(("vars", "matrix", "event"), max_bytes=MAX_KEY_BYTES), max_items=20),
            "Texts, and `file:GLOB` for a hash of files.",
            is_required=True,
        ),
        Key(
            ("paths",),
            ListOf(_CachePath(max_bytes=1024), max_items=20),
            "Files and directories, absolute or from where the command runs.",
            is_required=True,
        ),
        Key(
            ("restore_keys",),
            ListOf(Templated(("vars", "matrix", "event"), max_bytes=MAX_KEY_BYTES), max_items=20),
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
RESOURCES = Object(
    what="resources",
    make=lambda cpu=None, memory=None: (cpu, memory),
    keys=(Key(("cpu",), _CPU, "Processors."), Key(("memory",), _MEMORY, "Memory.")),
)


class Capabilities(Kind[bool]):
    """``builder``, to build images; returns whether it is there."""

    _REFUSED: ClassVar = {
        "docker": "is not available: a job never gets the engine's socket; to build images, use builder",
        "gpu": "is not available here",
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


class RunAs(Kind[None]):
    """The original's user of a container."""

    def read(self, node: Node, key: str, reader: Reader) -> None:
        user = node.entries.get("user") if isinstance(node, Mapping) else None
        if user is not None and isinstance(user[1], Scalar) and user[1].text in ("root", "0", "0:0"):
            reader.problems.warn(node.place, f"{key} is ignored: a job runs as the user of its image")
        else:
            reader.error(
                node.place,
                f"{key}: this user is not available; a job runs as the user of its image; leave it out",
            )

    def schema(self) -> Schema:
        return {"type": "object", "deprecated": True}


RUN_LOCAL = Object(
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
