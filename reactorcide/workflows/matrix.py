"""The combinations of a matrix."""

import re
from collections.abc import Iterator
from collections.abc import Mapping as AbstractMapping
from dataclasses import field
from itertools import product
from math import prod

from reactorcide.lib.records import record
from reactorcide.workflows.kinds import Kind, ListOf, Reader, Schema
from reactorcide.workflows.nodes import Mapping, Node, Sequence
from reactorcide.workflows.problems import Place, quoted
from reactorcide.workflows.scalars import Text, whole

MAX_COMBINATIONS = 256

_AXIS = r"[A-Za-z_][A-Za-z0-9_-]*"
_VALUE = Text(pattern=r"[^\x00-\x1f\x7f]*", like="on one line, without control characters", max_bytes=128)
_MAX_PARALLEL = whole(1, MAX_COMBINATIONS)
_OTHER_KEYS = ("include", "exclude", "max_parallel")


@record
class Matrix:
    """Combinations of values by axis, each with its label, such as ``3.11, linux``."""

    combinations: AbstractMapping[str, AbstractMapping[str, str]] = field(default_factory=dict)
    max_parallel: int | None = None
    """How many of them may run at once."""
    item_var: str | None = None
    """Of ``for_each``: the axis that is a variable of the job as well."""


class MatrixKind(Kind[Matrix]):
    """Lists by axis, with ``include``, ``exclude`` and ``max_parallel``."""

    def read(self, node: Node, key: str, reader: Reader) -> Matrix | None:
        if not isinstance(node, Mapping):
            reader.error(node.place, f"{key} takes a mapping, with a list for each axis")
            return None
        axes: dict[str, tuple[str, ...]] = {}
        for name, name_node, value in node:
            if name in _OTHER_KEYS:
                continue
            if re.fullmatch(_AXIS, name):
                axes[name] = _axis(name, value, reader)
            else:
                message = f"{key}: {quoted(name)} is not an axis name: letters, digits, '_' and '-'"
                reader.error(name_node.place, message)
        count = prod(map(len, axes.values()))
        if count > MAX_COMBINATIONS:
            message = f"{key} has {count} combinations; at most {MAX_COMBINATIONS} are allowed"
            reader.error(node.place, message)
            return None
        combinations = (
            [dict(zip(axes, values, strict=True)) for values in product(*axes.values())] if axes else []
        )
        for entry, place in _entries(node, "exclude", axes, reader):
            remaining = [item for item in combinations if not entry.items() <= item.items()]
            if len(remaining) == len(combinations):
                reader.problems.warn(place, "this excludes no combination")
            combinations = remaining
        labels = {", ".join(combination.values()): combination for combination in combinations}
        added = self._include(node, axes, labels, reader)
        if not labels and not reader.problems.has_errors:
            reader.error(node.place, f"{key} has no combination; give it an axis with values, or include")
        if len(labels) > MAX_COMBINATIONS:
            message = f"{key} has {len(labels)} combinations; at most {MAX_COMBINATIONS} are allowed"
            reader.error(node.place, message)
            return None
        if len(combinations) + added > len(labels):
            reader.error(node.place, f"{key}: two combinations have the same values in the same order")
        parallel = node.entries.get("max_parallel")
        return Matrix(labels, parallel and _MAX_PARALLEL.read(parallel[1], "max_parallel", reader))

    def _include(
        self,
        node: Mapping,
        axes: AbstractMapping[str, tuple[str, ...]],
        labels: dict[str, dict[str, str]],
        reader: Reader,
    ) -> int:
        """Add what ``include`` says to ``labels``; returns how many combinations it adds.

        An entry that has the axes' values of a combination adds its other values to it; one that has
        other values of the axes is a combination of its own.
        """
        original = [({name: values[name] for name in axes}, values) for values in labels.values()]
        added = 0
        for entry, _ in _entries(node, "include", None, reader):
            of_axes = {name: value for name, value in entry.items() if name in axes}
            extended = [values for axis_values, values in original if of_axes.items() <= axis_values.items()]
            for values in extended:
                values.update(entry)
            if not extended:
                ordered = {name: entry[name] for name in axes if name in entry} | entry
                labels[", ".join(ordered.values())] = ordered
                added += 1
        return added

    def schema(self) -> Schema:
        value = _VALUE.schema()
        entries = {"type": "array", "items": {"type": "object", "additionalProperties": value}}
        return {
            "type": "object",
            "properties": {"include": entries, "exclude": entries, "max_parallel": _MAX_PARALLEL.schema()},
            "patternProperties": {rf"^(?!(?:{'|'.join(_OTHER_KEYS)})$)": {"type": "array", "items": value}},
        }


def _axis(name: str, node: Node, reader: Reader) -> tuple[str, ...]:
    if not isinstance(node, Sequence) or not node.items:
        reader.error(node.place, f"the axis {name} takes a list of values")
        return ("",)
    values: dict[str, None] = {}
    for item in node.items:
        value = _VALUE.read(item, name, reader)
        if value in values:
            reader.error(item.place, f"{name}: the value {quoted(value)} is given twice")
        elif value is not None:
            values[value] = None
    return tuple(values) or ("",)


def _entries(
    node: Mapping, key: str, axes: AbstractMapping[str, object] | None, reader: Reader
) -> Iterator[tuple[dict[str, str], Place]]:
    """Yield the mappings of ``include`` or ``exclude``, with their places."""
    if key not in node.entries:
        return
    entries = node.entries[key][1]
    if not isinstance(entries, Sequence) or len(entries.items) > MAX_COMBINATIONS:
        reader.error(entries.place, f"{key} takes a list of at most {MAX_COMBINATIONS} mappings")
        return
    for entry in entries.items:
        if not isinstance(entry, Mapping) or not entry.entries:
            reader.error(entry.place, f"{key} takes mappings, with a value by axis")
            continue
        values: dict[str, str] = {}
        for name, name_node, value_node in entry:
            if re.fullmatch(_AXIS, name) is None:
                reader.error(name_node.place, f"{key}: {quoted(name)} is not an axis name")
            elif axes is not None and name not in axes:
                reader.error(
                    name_node.place, f"{key}: there is no axis {quoted(name)}", got=name, known=list(axes)
                )
            elif (value := _VALUE.read(value_node, name, reader)) is not None:
                values[name] = value
        if len(values) == len(entry.entries):
            yield values, entry.place


_ITEMS = ListOf(_VALUE, max_items=MAX_COMBINATIONS, may_be_alone=False)


class ItemsKind(Kind[tuple[str, ...]]):
    """The values of ``for_each``, each once."""

    def read(self, node: Node, key: str, reader: Reader) -> tuple[str, ...] | None:
        values = _ITEMS.read(node, key, reader)
        if values is None or len(set(values)) == len(values) > 0:
            return values
        reader.error(node.place, f"{key} takes at least one value, and each once")
        return None

    def schema(self) -> Schema:
        return _ITEMS.schema()
