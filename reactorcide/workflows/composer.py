"""Building the tree of a YAML file from the events of its parser."""

from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from reactorcide.workflows.nodes import (
    MAX_DEPTH,
    MAX_EXPANDED_CHARS,
    MAX_VALUES,
    Mapping,
    Node,
    Scalar,
    Sequence,
    Stop,
)
from reactorcide.workflows.problems import Place, Problems, quoted

_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")
)
_TAGS_OF_PLAIN = _TAGS - {"tag:yaml.org,2002:str"}
_MERGE = "<<"


class Composer:
    """Builds the tree of one file."""

    def __init__(self, file: str, problems: Problems) -> None:
        self._file = file
        self._problems = problems
        self._anchors: dict[str, Node] = {}
        self._open: list[_Open] = []
        self._root: Node | None = None

    def compose(self, text: str) -> Node | None:
        """Return the tree of a file's text; raises ``Stop`` after an error."""
        values = 0
        try:
            for event in YAML(typ="safe", pure=True).parse(text):
                values += isinstance(event, NodeEvent)
                if values > MAX_VALUES:
                    self._fail(event, f"the file has more than {MAX_VALUES} keys and values")
                self._take(event)
        except MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            place = Place(self._file) if mark is None else Place(self._file, mark.line + 1, mark.column + 1)
            self._problems.error(place, f"this is not valid YAML: {exc.problem or exc.context}")
            raise Stop from exc
        except ReaderError as exc:
            before = text[: exc.position]
            place = Place(self._file, before.count("\n") + 1, len(before) - before.rfind("\n"))
            self._problems.error(
                place, f"the character U+{ord(text[exc.position]):04X} is not allowed in YAML"
            )
            raise Stop from exc
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, AssertionError) as exc:
            # The parser has no error of its own for some escapes and directives, such as "\UFFFFFFFF".
            self._problems.error(
                self._last_place, "this cannot be read as YAML; check its quotes and escapes"
            )
            raise Stop from exc
        return self._root

    @property
    def _last_place(self) -> Place:
        return self._open[-1].place if self._open else Place(self._file)

    def _take(self, event: Any) -> None:
        if isinstance(event, ScalarEvent):
            is_plain = event.style is None and (event.ctag is None or str(event.ctag) in _TAGS_OF_PLAIN)
            self._check_tag(event)
            self._attach(event, Scalar(self._place(event), event.value, is_plain), event.anchor)
        elif isinstance(event, AliasEvent):
            self._attach(event, self._anchored(event), None)
        elif isinstance(event, SequenceStartEvent | MappingStartEvent):
            if len(self._open) == MAX_DEPTH:
                self._fail(event, f"lists and mappings are nested more than {MAX_DEPTH} deep")
            self._check_tag(event)
            self._open.append(_Open(self._place(event), event.anchor, isinstance(event, MappingStartEvent)))
        elif isinstance(event, CollectionEndEvent):
            opened = self._open.pop()
            values = 1 + sum(node.values for node in opened.nodes)
            chars = sum(node.chars for node in opened.nodes)
            if values > MAX_VALUES or chars > MAX_EXPANDED_CHARS:
                self._fail(
                    event,
                    f"with its anchors expanded the file has more than {MAX_VALUES} keys and values, "
                    f"or more than {MAX_EXPANDED_CHARS >> 20} MiB",
                )
            node = self._mapping(opened) if opened.is_mapping else Sequence(opened.place, opened.nodes)
            node.values, node.chars = values, chars
            self._attach(event, node, opened.anchor)
        elif isinstance(event, DocumentStartEvent) and self._root is not None:
            self._fail(event, "a second document begins here; write one workflow a file")

    def _attach(self, event: Any, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._open:
            self._root = node
        else:
            opened = self._open[-1]
            if opened.is_mapping and len(opened.nodes) % 2 == 0 and not isinstance(node, Scalar):
                self._problems.error(node.place, "a key has to be a text")
                raise Stop
            opened.nodes.append(node)

    def _anchored(self, event: Any) -> Node:
        name = event.anchor
        if any(opened.anchor == name for opened in self._open):
            self._fail(event, f"*{name} stands inside of its own anchor")
        if name not in self._anchors:
            self._fail(event, f"there is no anchor &{name} above")
        return self._anchors[name]

    def _mapping(self, opened: "_Open") -> Mapping:
        mapping = Mapping(opened.place)
        merged: list[Node] = []
        for key, value in zip(opened.nodes[::2], opened.nodes[1::2], strict=True):
            assert isinstance(key, Scalar)  # noqa: S101  # _attach takes no other
            if key.is_plain and key.text == _MERGE:
                merged.append(value)
            elif key.text in mapping.entries:
                first = mapping.entries[key.text][0].place.line
                self._problems.error(
                    key.place, f"the key {quoted(key.text)} is given twice, first in line {first}"
                )
            else:
                mapping.entries[key.text] = (key, value)
        for value in merged:
            for source in value.items if isinstance(value, Sequence) else [value]:
                if not isinstance(source, Mapping):
                    self._problems.error(source.place, "<< takes a mapping, or a list of them")
                    continue
                for name, entry in source.entries.items():
                    mapping.entries.setdefault(name, entry)
        return mapping

    def _check_tag(self, event: Any) -> None:
        if event.ctag is not None and str(event.ctag) != "!" and str(event.ctag) not in _TAGS:
            self._problems.error(
                self._place(event), f"the tag {quoted(str(event.ctag))} means nothing here; leave it out"
            )

    def _place(self, event: Any) -> Place:
        return Place(self._file, event.start_mark.line + 1, event.start_mark.column + 1)

    def _fail(self, event: Any, message: str) -> None:
        self._problems.error(self._place(event), message)
        raise Stop


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come: its values so far, of a mapping keys and values in turn."""

    place: Place
    anchor: str | None
    is_mapping: bool
    nodes: list[Node] = field(default_factory=list)
