"""Kinds of values: each parses a value of a file, and has a JSON Schema.

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

from reactorcide.lib.records import record
from reactorcide.workflows import references
from reactorcide.workflows.nodes import Mapping, Node, Scalar, Sequence
from reactorcide.workflows.problems import Place, Problems, quoted
from reactorcide.workflows.references import Budget, Scope, Source, Template

T = TypeVar("T")
Schema = dict[str, Any]

_FIXED: tuple[Source, ...] = ("vars", "matrix")
"""Sources of values that are known while a file is checked."""
_WORDS = {Scalar: "a single value", Sequence: "a list", Mapping: "a mapping"}


@record
class Reader:
    """The context of parsing a value."""

    problems: Problems
    scope: Scope
    budget: Budget = field(default_factory=Budget)

    def error(self, place: Place, message: str, *, got: str = "", known: Iterable[str] = ()) -> None:
        """Record an error."""
        self.problems.error(place, message, got=got, known=known)

    def literal(self, node: Node, key: str) -> str | None:
        """Return a text unchanged."""
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
    """The kind of a key's value."""

    @abstractmethod
    def read(self, node: Node, key: str, reader: Reader) -> T | None:
        """Return the value; ``None`` if it is wrong, which is then recorded."""

    @abstractmethod
    def schema(self) -> Schema:
        """Return the JSON Schema of the values that ``read`` accepts."""


@record
class ListOf(Kind[tuple[T, ...]]):
    """A list; one value alone is a list of one."""

    item: Kind[T]
    max_items: int = 100
    may_be_alone: bool = True

    def read(self, node: Node, key: str, reader: Reader) -> tuple[T, ...] | None:
        if not isinstance(node, Sequence):
            if not self.may_be_alone:
                reader.error(node.place, f"{key} takes a list, not {_WORDS[type(node)]}")
                return None
            value = self.item.read(node, key, reader)
            return None if value is None else (value,)
        if len(node.items) > self.max_items:
            reader.error(
                node.place, f"{key} has {len(node.items)} entries; at most {self.max_items} are allowed"
            )
            return None
        values = [self.item.read(item, key, reader) for item in node.items]
        good = tuple(value for value in values if value is not None)
        return good if len(good) == len(values) else None

    def schema(self) -> Schema:
        listed = {"type": "array", "items": self.item.schema(), "maxItems": self.max_items}
        return {"anyOf": [self.item.schema(), listed]} if self.may_be_alone else listed


@record
class MapOf(Kind[dict[str, T]]):
    """A mapping with names of the file's own."""

    value: Kind[T]
    name_pattern: str
    name_like: str
    max_items: int = 100

    def read(self, node: Node, key: str, reader: Reader) -> dict[str, T] | None:
        if not isinstance(node, Mapping):
            reader.error(node.place, f"{key} takes a mapping, not {_WORDS[type(node)]}")
            return None
        if len(node.entries) > self.max_items:
            reader.error(
                node.place, f"{key} has {len(node.entries)} entries; at most {self.max_items} are allowed"
            )
            return None
        values = {}
        for name, name_node, value_node in node:
            if re.fullmatch(self.name_pattern, name, re.ASCII) is None:
                reader.error(name_node.place, f"{key}: {quoted(name)} is not {self.name_like}")
            elif (value := self.value.read(value_node, name, reader)) is not None:
                values[name] = value
        return values

    def schema(self) -> Schema:
        names = {"pattern": f"^(?:{self.name_pattern})$"}
        return {
            "type": "object",
            "propertyNames": names,
            "additionalProperties": self.value.schema(),
            "maxProperties": self.max_items,
        }


@record
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
    def canonical(self) -> str:
        """What ``make`` knows it by."""
        return self.field or self.names[0]


@record
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
        values: dict[str, Written] = {}
        for name, name_node, value in node:
            key = self._by_name.get(name)
            if name in self.ignored:
                problems.warn(name_node.place, f"{name} {self.ignored[name]}")
            elif name in self.refused:
                problems.error(name_node.place, f"{name} is not a key of {self.what}; {self.refused[name]}")
            elif key is None:
                message = f"{quoted(name)} is not a key of {self.what}"
                problems.error(name_node.place, message, got=name, known=self._by_name)
            elif key.canonical in values:
                other = values[key.canonical].key
                problems.error(name_node.place, f"{name} and {other} mean the same; give one of them")
            elif not (isinstance(value, Scalar) and value.is_null):
                values[key.canonical] = Written(name, value)
        return values

    def require(self, written: Collection[str], place: Place, problems: Problems) -> None:
        """Record an error for each key that is missing."""
        for key in self.keys:
            if key.is_required and key.canonical not in written:
                problems.error(place, f"{self.what} needs the key {' or '.join(key.names)}")

    def values(self, written: AbstractMapping[str, Written], reader: Reader) -> dict[str, Any]:
        """Return what the keys' kinds read, without what is wrong."""
        values = {}
        for key in self.keys:
            item = written.get(key.canonical)
            if item is not None and (value := key.kind.read(item.node, item.key, reader)) is not None:
                values[key.canonical] = value
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
