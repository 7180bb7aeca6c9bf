"""Kinds of single values: texts, numbers, durations, sizes, choices and globs."""

import re
from collections.abc import Callable
from collections.abc import Mapping as AbstractMapping
from dataclasses import field
from typing import TypeVar

from reactorcide.domain import images
from reactorcide.domain.definition import JOB_FIELDS, MIN_MEMORY_BYTES
from reactorcide.domain.variables import MAX_VALUE_BYTES
from reactorcide.lib import globs, sizes
from reactorcide.lib.records import record
from reactorcide.workflows import references
from reactorcide.workflows.kinds import Kind, Reader, Schema
from reactorcide.workflows.nodes import Node, Scalar
from reactorcide.workflows.problems import quoted
from reactorcide.workflows.references import Source, Template

T = TypeVar("T")

LIMITS = {field.name: field.about.limits for field in JOB_FIELDS}
"""What the values of a job's fields have to be."""

_HAS_REFERENCE = r"\$\{"
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})


@record
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
            reader.error(node.place, f"{key}: {quoted(text)} is not {self.like}")
        else:
            return text
        return None

    def schema(self) -> Schema:
        if not self.pattern:
            return {"type": ["string", "number", "boolean"]}
        # Numbers are texts here, but a schema has no pattern for them.
        either = f"|{_HAS_REFERENCE}" if self.has_references else ""
        return {"type": ["string", "number"], "pattern": f"^(?:{self.pattern})${either}"}


@record
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


@record
class Image(Templated):
    """An image reference."""

    max_bytes: int = 255

    def read(self, node: Node, key: str, reader: Reader) -> Template | None:
        template = Templated.read(self, node, key, reader)
        if template is None or template.references or images.is_image_reference(str(template)):
            return template
        reader.error(
            node.place, f"{key}: {quoted(str(template))} is not an image reference, like alpine:latest"
        )
        return None


@record
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
            reader.error(node.place, f"{key}: {quoted(text)} {exc}")
            return None

    def schema(self) -> Schema:
        return {"anyOf": [self.takes, {"type": "string", "pattern": _HAS_REFERENCE}]}


def whole(minimum: int, maximum: int) -> Parsed[int]:
    """Return the kind of whole numbers from ``minimum`` to ``maximum``."""

    def parse(text: str) -> int:
        if re.fullmatch(r"[-+]?[0-9]{1,15}", text, re.ASCII) is None or not minimum <= int(text) <= maximum:
            raise ValueError(f"is not a whole number from {minimum} to {maximum}")
        return int(text)

    return Parsed(parse, {"type": "integer", "minimum": minimum, "maximum": maximum}, is_typed=True)


def _parse_flag(text: str) -> bool:
    if text not in _TRUE | _FALSE:
        raise ValueError("is neither true nor false")
    return text in _TRUE


FLAG = Parsed(_parse_flag, {"type": "boolean"}, is_typed=True)

_DURATION = r"([0-9]{1,9})([smhd]?)"
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def duration(max_s: int) -> Parsed[int]:
    """Return the kind of durations, in seconds, from 1 to ``max_s``."""

    def parse(text: str) -> int:
        match = re.fullmatch(_DURATION, text, re.ASCII)
        seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
        if not 1 <= seconds <= max_s:
            raise ValueError(f"is not a duration from 1 to {max_s} seconds; write seconds, or 90s, 20m, 2h")
        return seconds

    choices = [
        {"type": "integer", "minimum": 1, "maximum": max_s},
        {"type": "string", "pattern": f"^{_DURATION}$"},
    ]
    return Parsed(parse, {"anyOf": choices})


def _parse_cpus(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(m?)", text, re.ASCII)
    cpus = float(match[1]) / (1000 if match[2] else 1) if match else 0.0
    minimum, maximum = LIMITS["cpu_limit"]["ge"], LIMITS["cpu_limit"]["le"]
    if not minimum <= cpus <= maximum:
        raise ValueError(f"is not a number of processors from {minimum} to {maximum}, like 2, 0.5 or 500m")
    return cpus


CPUS = Parsed(_parse_cpus, {"type": ["number", "string"]})


def _parse_memory(text: str) -> int:
    try:
        size_bytes = sizes.parse_size(re.sub(r"i?[bB]?$", "", text) if not text.isdigit() else text)
    except ValueError:
        size_bytes = 0
    if not MIN_MEMORY_BYTES <= size_bytes < 2**63:
        raise ValueError(
            "is not a size of at least 6m; write bytes, or a number with k, m, g or t, like 512m or 2Gi"
        )
    return size_bytes


MEMORY = Parsed(_parse_memory, {"type": ["integer", "string"]})


@record
class Choice(Kind[str]):
    """One of some words."""

    words: tuple[str, ...]
    synonyms: AbstractMapping[str, str] = field(default_factory=dict)

    def read(self, node: Node, key: str, reader: Reader) -> str | None:
        text = reader.text(node, key)
        if text is None:
            return None
        if text not in self.words and text not in self.synonyms:
            message = f"{key}: {quoted(text)} is none of {', '.join(self.words)}"
            reader.error(node.place, message, got=text, known=self.words)
            return None
        return self.synonyms.get(text, text)

    def schema(self) -> Schema:
        return {"enum": [*self.words, *self.synonyms]}


@record
class Glob(Kind[str]):
    """A glob of names that are split at slashes."""

    def read(self, node: Node, key: str, reader: Reader) -> str | None:
        text = reader.text(node, key)
        if text is None:
            return None
        problem = _text_problem(text, 1024) or glob_problem(text)
        if problem:
            reader.error(node.place, f"{key}: the glob {quoted(text)} {problem}")
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


def _text_problem(text: str, max_bytes: int) -> str | None:
    if _NO_TEXT.search(text):
        return "contains NUL, or half of a surrogate pair"
    size_bytes = len(text.encode())
    return f"has {size_bytes} bytes; at most {max_bytes} are allowed" if size_bytes > max_bytes else None
