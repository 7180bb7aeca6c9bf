"""Kinds of values: each reads a value of a file, and says as JSON Schema what it takes.

Both come from one declaration, so that an editor accepts what the service accepts. A kind that cannot use a
value records the error and returns ``None``; reading goes on, so that all errors are found at once.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from reactorcide.domain import images
from reactorcide.domain.definition import JOB_FIELDS, MAX_VALUE_BYTES, MIN_MEMORY_BYTES
from reactorcide.lib import globs, sizes
from reactorcide.workflows import references
from reactorcide.workflows.nodes import Mapping, Node, Scalar, Sequence
from reactorcide.workflows.problems import Place, Problems, shown
from reactorcide.workflows.references import Budget, Scope, Source, Template

T = TypeVar("T")
Schema = dict[str, Any]

LIMITS = {field.name: field.about.limits for field in JOB_FIELDS}
"""What the values of a job's fields have to be."""

_FIXED: tuple[Source, ...] = ("vars", "matrix")
"""What is known while a file is checked, and so may stand where not every text will do."""
_HAS_REFERENCE = r"\$\{"
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_WORDS = {Scalar: "a single value", Sequence: "a list", Mapping: "a mapping"}
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})


@dataclass(frozen=True, slots=True)
class Reader:
    """What reading a value takes along."""

    problems: Problems
    scope: Scope
    budget: Budget = field(default_factory=Budget)

    def error(self, place: Place, message: str, *, got: str = "", known: Iterable[str] = ()) -> None:
        """Record an error."""
        self.problems.error(place, message, got=got, known=known)

    def literal(self, node: Node, key: str) -> str | None:
        """Return a text as it is written."""
        if isinstance(node, Scalar):
            return node.text
        self.error(node.place, f"{key} takes a single value, not {_WORDS[type(node)]}")
        return None

    def template(self, node: Node, key: str, allowed: Collection[Source]) -> Template | None:
        """Return a text with its references."""
        if self.literal(node, key) is None or not isinstance(node, Scalar):
            return None
        return references.parse(node, allowed, self.scope, self.problems, self.budget)

    def text(self, node: Node, key: str) -> str | None:
        """Return a text that is known now."""
        template = self.template(node, key, _FIXED)
        return None if template is None else "".join(map(str, template.parts))


class Kind(ABC, Generic[T]):
    """What a key takes."""

    @abstractmethod
    def read(self, node: Node, key: str, reader: Reader) -> T | None:
        """Return the value; ``None`` where it is wrong, which is then recorded."""

    @abstractmethod
    def schema(self) -> Schema:
        """Return the JSON Schema of what ``read`` takes."""


@dataclass(frozen=True, slots=True)
class Text(Kind[str]):
    """A text; of a number or boolean, the text as it is written."""

    pattern: str = ""
    like: str = ""
    """How the pattern is said in words."""
    max_bytes: int = 255
    has_references: bool = True

    def read(self, node: Node, key: str, reader: Reader) -> str | None:
        text = reader.text(node, key) if self.has_references else reader.literal(node, key)
        if text is None:
            return None
        if problem := _text_problem(text, self.max_bytes):
            reader.error(node.place, f"{key} {problem}")
        elif self.pattern and re.fullmatch(self.pattern, text) is None:
            reader.error(node.place, f"{key}: {shown(text)} is not {self.like}")
        else:
            return text
        return None

    def schema(self) -> Schema:
        if not self.pattern:
            return {"type": ["string", "number", "boolean"]}
        # Numbers are texts here, but a schema has no pattern for them.
        either = f"|{_HAS_REFERENCE}" if self.has_references else ""
        return {"type": ["string", "number"], "pattern": f"^(?:{self.pattern})${either}"}


@dataclass(frozen=True, slots=True)
class Templated(Kind[Template]):
    """A text with references, also to what is known only later."""

    allowed: tuple[Source, ...] = references.SOURCES
    max_bytes: int = MAX_VALUE_BYTES

    def read(self, node: Node, key: str, reader: Reader) -> Template | None:
        if isinstance(node, Scalar) and node.is_null:
            return Template()
        template = reader.template(node, key, self.allowed)
        if template is None:
            return None
        text = "".join(part for part in template.parts if isinstance(part, str))
        if problem := _text_problem(text, self.max_bytes):
            reader.error(node.place, f"{key} {problem}")
            return None
        return template

    def schema(self) -> Schema:
        return {"type": ["string", "number", "boolean", "null"]}


@dataclass(frozen=True, slots=True)
class Image(Templated):
    """An image reference."""

    max_bytes: int = 255

    def read(self, node: Node, key: str, reader: Reader) -> Template | None:
        template = Templated.read(self, node, key, reader)
        if template is None or template.references or images.is_image_reference(str(template)):
            return template
        reader.error(node.place, f"{key}: {shown(str(template))} is no image reference, like alpine:latest")
        return None


@dataclass(frozen=True, slots=True)
class Parsed(Kind[T]):
    """A text that means something else, such as a number."""

    parse: Callable[[str], T]
    """Raises ``ValueError`` with the rest of a sentence that begins with the key and the text."""
    takes: Schema
    is_typed: bool = False
    """Whether quotes make it a mere text."""

    def read(self, node: Node, key: str, reader: Reader) -> T | None:
        text = reader.text(node, key)
        if text is None:
            return None
        try:
            if self.is_typed and isinstance(node, Scalar) and not node.is_plain and "${" not in node.text:
                raise ValueError("is a text, because of its quotes; leave them out")
            return self.parse(text)
        except ValueError as exc:
            reader.error(node.place, f"{key}: {shown(text)} {exc}")
            return None

    def schema(self) -> Schema:
        return {"anyOf": [self.takes, {"type": "string", "pattern": _HAS_REFERENCE}]}


def whole(least: int, most: int) -> Parsed[int]:
    """Return the kind of whole numbers from ``least`` to ``most``."""

    def parse(text: str) -> int:
        if re.fullmatch(r"[-+]?[0-9]{1,15}", text, re.ASCII) is None or not least <= int(text) <= most:
            raise ValueError(f"is no whole number from {least} to {most}")
        return int(text)

    return Parsed(parse, {"type": "integer", "minimum": least, "maximum": most}, is_typed=True)


def _parse_flag(text: str) -> bool:
    if text not in _TRUE | _FALSE:
        raise ValueError("is neither true nor false")
    return text in _TRUE


FLAG = Parsed(_parse_flag, {"type": "boolean"}, is_typed=True)

_DURATION = r"([0-9]{1,9})([smhd]?)"
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def duration(most_s: int) -> Parsed[int]:
    """Return the kind of durations, in seconds, from 1 to ``most_s``."""

    def parse(text: str) -> int:
        match = re.fullmatch(_DURATION, text, re.ASCII)
        seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
        if not 1 <= seconds <= most_s:
            raise ValueError(f"is no duration from 1 to {most_s} seconds; write seconds, or 90s, 20m, 2h")
        return seconds

    choices = [
        {"type": "integer", "minimum": 1, "maximum": most_s},
        {"type": "string", "pattern": f"^{_DURATION}$"},
    ]
    return Parsed(parse, {"anyOf": choices})


def _parse_cpus(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(m?)", text, re.ASCII)
    cpus = float(match[1]) / (1000 if match[2] else 1) if match else 0.0
    least, most = LIMITS["cpu_limit"]["ge"], LIMITS["cpu_limit"]["le"]
    if not least <= cpus <= most:
        raise ValueError(f"is no number of processors from {least} to {most}, like 2, 0.5 or 500m")
    return cpus


CPUS = Parsed(_parse_cpus, {"type": ["number", "string"]})


def _parse_memory(text: str) -> int:
    try:
        size_bytes = sizes.parse_size(re.sub(r"i?[bB]?$", "", text) if not text.isdigit() else text)
    except ValueError:
        size_bytes = 0
    if not MIN_MEMORY_BYTES <= size_bytes < 2**63:
        raise ValueError(
            "is no size of at least 6m; write bytes, or a number with k, m, g or t, like 512m or 2Gi"
        )
    return size_bytes


MEMORY = Parsed(_parse_memory, {"type": ["integer", "string"]})


@dataclass(frozen=True, slots=True)
class Choice(Kind[str]):
    """One of some words."""

    words: tuple[str, ...]
    synonyms: AbstractMapping[str, str] = field(default_factory=dict)

    def read(self, node: Node, key: str, reader: Reader) -> str | None:
        text = reader.text(node, key)
        if text is None:
            return None
        if text not in self.words and text not in self.synonyms:
            message = f"{key}: {shown(text)} is none of {', '.join(self.words)}"
            reader.error(node.place, message, got=text, known=self.words)
            return None
        return self.synonyms.get(text, text)

    def schema(self) -> Schema:
        return {"enum": [*self.words, *self.synonyms]}


@dataclass(frozen=True, slots=True)
class Glob(Kind[str]):
    """A glob of names that are split at slashes."""

    def read(self, node: Node, key: str, reader: Reader) -> str | None:
        text = reader.text(node, key)
        if text is None:
            return None
        problem = _text_problem(text, 1024) or glob_problem(text)
        if problem:
            reader.error(node.place, f"{key}: the glob {shown(text)} {problem}")
            return None
        return text

    def schema(self) -> Schema:
        return {"type": ["string", "number"]}


def glob_problem(glob: str) -> str | None:
    """Return in a phrase what is wrong with a glob; ``None`` for a good one."""
    if glob.startswith("/"):
        return "begins with a slash; globs are matched from the top, without one"
    if any(_is_open(part) for part in glob.split("/")):
        return "has a [ that is not closed; write [[] for a [ itself"
    return globs.problem(glob)


def _is_open(part: str) -> bool:
    # As fnmatch has it: the first character of a set may be a ].
    rest = re.sub(r"\[!?\]?[^\]]*\]", "", part)
    return "[" in rest


@dataclass(frozen=True, slots=True)
class ListOf(Kind[tuple[T, ...]]):
    """A list; one value alone is a list of one."""

    item: Kind[T]
    most: int = 100
    may_be_alone: bool = True

    def read(self, node: Node, key: str, reader: Reader) -> tuple[T, ...] | None:
        if not isinstance(node, Sequence):
            if not self.may_be_alone:
                reader.error(node.place, f"{key} takes a list, not {_WORDS[type(node)]}")
                return None
            value = self.item.read(node, key, reader)
            return None if value is None else (value,)
        if len(node.items) > self.most:
            reader.error(node.place, f"{key} has {len(node.items)} entries; at most {self.most} are allowed")
            return None
        values = [self.item.read(item, key, reader) for item in node.items]
        good = tuple(value for value in values if value is not None)
        return good if len(good) == len(values) else None

    def schema(self) -> Schema:
        listed = {"type": "array", "items": self.item.schema(), "maxItems": self.most}
        return {"anyOf": [self.item.schema(), listed]} if self.may_be_alone else listed


@dataclass(frozen=True, slots=True)
class MapOf(Kind[dict[str, T]]):
    """A mapping with names of the file's own."""

    value: Kind[T]
    name_pattern: str
    name_like: str
    most: int = 100

    def read(self, node: Node, key: str, reader: Reader) -> dict[str, T] | None:
        if not isinstance(node, Mapping):
            reader.error(node.place, f"{key} takes a mapping, not {_WORDS[type(node)]}")
            return None
        if len(node.entries) > self.most:
            reader.error(
                node.place, f"{key} has {len(node.entries)} entries; at most {self.most} are allowed"
            )
            return None
        values = {}
        for name, name_node, value_node in node:
            if re.fullmatch(self.name_pattern, name, re.ASCII) is None:
                reader.error(name_node.place, f"{key}: {shown(name)} is not {self.name_like}")
            elif (value := self.value.read(value_node, name, reader)) is not None:
                values[name] = value
        return values

    def schema(self) -> Schema:
        names = {"pattern": f"^(?:{self.name_pattern})$"}
        return {
            "type": "object",
            "propertyNames": names,
            "additionalProperties": self.value.schema(),
            "maxProperties": self.most,
        }


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an object."""

    names: tuple[str, ...]
    """How it may be written."""
    kind: Kind[Any]
    about: str
    is_required: bool = False
    field: str = ""
    """What ``make`` knows it by, where that is not the first of its names."""

    @property
    def known_as(self) -> str:
        """What ``make`` knows it by."""
        return self.field or self.names[0]


@dataclass(frozen=True, slots=True)
class Written:
    """A value, and the key as it was written."""

    key: str
    node: Node


@dataclass(frozen=True, kw_only=True)
class Object(Kind[T]):
    """A mapping with known keys."""

    what: str
    make: Callable[..., T]
    """Takes the values of the keys as they are known; what is left out has a default there."""
    keys: tuple[Key, ...]
    ignored: AbstractMapping[str, str] = field(default_factory=dict)
    """Keys that mean nothing here, each with the rest of a sentence that says why."""
    refused: AbstractMapping[str, str] = field(default_factory=dict)
    """Keys of other services that people write, each with what to write in their place."""

    @cached_property
    def _by_name(self) -> dict[str, Key]:
        return {name: key for key in self.keys for name in key.names}

    def read(self, node: Node, key: str, reader: Reader) -> T | None:
        if not isinstance(node, Mapping):
            reader.error(node.place, f"{key} takes a mapping, not {_WORDS[type(node)]}")
            return None
        written = self.written(node, reader.problems)
        self.require(written, node.place, reader.problems)
        return self.make(**self.values(written, reader))

    def written(self, node: Mapping, problems: Problems) -> dict[str, Written]:
        """Return the values of a mapping as their keys are known; a key that is not known is an error."""
        found: dict[str, Written] = {}
        for name, name_node, value in node:
            key = self._by_name.get(name)
            if name in self.ignored:
                problems.warn(name_node.place, f"{name} {self.ignored[name]}")
            elif name in self.refused:
                problems.error(name_node.place, f"{name} is no key of {self.what}; {self.refused[name]}")
            elif key is None:
                message = f"{shown(name)} is no key of {self.what}"
                problems.error(name_node.place, message, got=name, known=self._by_name)
            elif key.known_as in found:
                other = found[key.known_as].key
                problems.error(name_node.place, f"{name} and {other} mean the same; give one of them")
            elif not (isinstance(value, Scalar) and value.is_null):
                found[key.known_as] = Written(name, value)
        return found

    def require(self, written: Collection[str], place: Place, problems: Problems) -> None:
        """Record an error for each key that is missing."""
        for key in self.keys:
            if key.is_required and key.known_as not in written:
                problems.error(place, f"{self.what} needs the key {' or '.join(key.names)}")

    def values(self, written: AbstractMapping[str, Written], reader: Reader) -> dict[str, Any]:
        """Return what the keys' kinds read, without what is wrong."""
        values = {}
        for key in self.keys:
            found = written.get(key.known_as)
            if found is not None and (value := key.kind.read(found.node, found.key, reader)) is not None:
                values[key.known_as] = value
        return values

    def schema(self) -> Schema:
        properties: Schema = {}
        for key in self.keys:
            for name in key.names:
                properties[name] = {"description": key.about, **_or_null(key.kind.schema())}
        for name, why in self.ignored.items():
            properties[name] = {"description": f"{name} {why}", "deprecated": True}
        schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        required = [key for key in self.keys if key.is_required]
        if required:
            schema["allOf"] = [{"anyOf": [{"required": [name]} for name in key.names]} for key in required]
        return schema


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _text_problem(text: str, max_bytes: int) -> str | None:
    if _NO_TEXT.search(text):
        return "contains NUL, or half of a surrogate pair"
    size_bytes = len(text.encode())
    return f"has {size_bytes} bytes; at most {max_bytes} are allowed" if size_bytes > max_bytes else None
