"""References: ``${…}`` in the values of a workflow file.

A value with references is a ``Template``: its texts and references in turn. What is put in for a reference is
text and never read again, so that no value can bring a reference of its own.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import field, fields
from typing import Literal, TypeAlias, cast, get_args

from reactorcide.lib.records import record
from reactorcide.workflows.events import Event
from reactorcide.workflows.nodes import Scalar
from reactorcide.workflows.problems import Problems, quoted

TemplateJson: TypeAlias = str | list[str | list[str]]
"""A text; with references a list of texts and of pairs, each a source and a name."""
Source = Literal["vars", "matrix", "event", "needs", "secret", "env"]
SOURCES: tuple[Source, ...] = get_args(Source)
EVENT_FIELDS = tuple(field.name for field in fields(Event))
MAX_CHARS = 8 << 20
"""Characters of all values with references in one workflow, once these are replaced."""
OUTPUT_KEY = r"[A-Za-z_][A-Za-z0-9_-]*"

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}\n]*)\}|\$\{")
_SECRET = re.compile(r"[A-Za-z0-9/_-]+:[A-Za-z0-9/_-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_OUTPUT = re.compile(rf"(.+)\.({OUTPUT_KEY})")
_TOO_LARGE = f"with the references replaced up to here the workflow is larger than {MAX_CHARS >> 20} MiB"
_ESCAPE = "; write $${ for a ${ of your own"
_UNCLOSED = f"a ${{ has no closing brace{_ESCAPE}"
_TWO_BRACES = "a reference has one brace, like ${matrix.python}, not two"


@record
class Reference:
    """What stands in for a value that comes later."""

    source: Source
    name: str

    def __str__(self) -> str:
        return f"${{{self.source}{':' if self.source in ('secret', 'env') else '.'}{self.name}}}"

    @property
    def output(self) -> tuple[str, str]:
        """Of ``needs``: the job, and the key that it writes."""
        job, _, key = self.name.rpartition(".")
        return job, key


@record
class Template:
    """A text, some of which may come later."""

    parts: tuple[str | Reference, ...] = ()

    @property
    def references(self) -> tuple[Reference, ...]:
        """What is still to come."""
        return tuple(part for part in self.parts if isinstance(part, Reference))

    def fill(self, value_of: Callable[[Reference], str]) -> str:
        """Return the text, with a value for each reference."""
        return "".join(part if isinstance(part, str) else value_of(part) for part in self.parts)

    def as_json(self) -> TemplateJson:
        """Return the template as JSON has it."""
        if not self.references:
            return self.fill(str)
        return [part if isinstance(part, str) else [part.source, part.name] for part in self.parts]

    @classmethod
    def of_json(cls, value: TemplateJson) -> "Template":
        """Return what ``as_json`` was made of."""
        parts = [value] if isinstance(value, str) else value
        return cls(
            tuple(
                part if isinstance(part, str) else Reference(cast(Source, part[0]), part[1]) for part in parts
            )
        )

    def __str__(self) -> str:
        """The text as a file would have it."""
        return "".join(
            part.replace("${", "$${") if isinstance(part, str) else str(part) for part in self.parts
        )


@record(kw_only=True)
class Scope:
    """The values that references stand for, as far as they are known."""

    vars: Mapping[str, str] = field(default_factory=dict)
    matrix: Mapping[str, str] | None = None
    event: Event | None = None
    """``None`` if a file is only checked: such references stay."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Other such references stay."""
    needs: Collection[str] = ()
    """The jobs whose outputs may be read."""
    matrix_jobs: Collection[str] = ()
    """The jobs that have a matrix, and so have no output of one value."""


class Budget:
    """Bounds what the values of one workflow come to once their references are replaced."""

    def __init__(self) -> None:
        self._chars = 0

    def take(self, chars: int) -> bool:
        """Return whether there is room for so many characters more, and count them."""
        self._chars += chars
        return self._chars <= MAX_CHARS


def parse(
    scalar: Scalar, allowed: Collection[Source], scope: Scope, problems: Problems, budget: Budget
) -> Template | None:
    """Return a value with those references replaced that the scope knows.

    ``None`` if a reference is wrong; that is an error in ``problems``, at the place of the value.
    """
    text = scalar.text
    if "${" not in text:
        return Template((text,)) if text else Template()
    if not budget.take(len(text)):
        problems.error(scalar.place, _TOO_LARGE)
        return None
    parts: list[str | Reference | None] = []
    end = 0
    for match in _REFERENCE.finditer(text):
        parts.append(text[end : match.start()])
        end = match.end()
        if match[0] == "${":
            is_doubled = text.startswith("{", end)
            problems.error(scalar.place, _TWO_BRACES if is_doubled else _UNCLOSED)
            return None
        value = "${" if match[0] == "$${" else _value(match[1], scalar, allowed, scope, problems)
        if isinstance(value, str) and not budget.take(len(value)):
            problems.error(scalar.place, _TOO_LARGE)
            return None
        parts.append(value)
    parts.append(text[end:])
    good = [part for part in parts if part is not None]
    return Template(_joined(good)) if len(good) == len(parts) else None


def _joined(parts: list[str | Reference]) -> tuple[str | Reference, ...]:
    joined: list[str | Reference] = []
    texts: list[str] = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
            continue
        if text := "".join(texts):
            joined.append(text)
        texts.clear()
        joined.append(part)
    if text := "".join(texts):
        joined.append(text)
    return tuple(joined)


def _value(
    inner: str, scalar: Scalar, allowed: Collection[Source], scope: Scope, problems: Problems
) -> str | Reference | None:
    """Return the value of ``${inner}``, or a reference where that comes later; ``None`` if it is wrong."""

    def wrong(message: str, got: str = "", starts: Iterable[str] = ()) -> str | Reference | None:
        problems.error(scalar.place, message, got=got, known=starts)
        return None

    written = f"${{{inner}}}"
    source, name = _split(inner)
    if source not in SOURCES:
        starts = [f"{starts}{':' if starts in ('secret', 'env') else '.'}" for starts in SOURCES]
        return wrong(f"{quoted(written)} is not a reference (they begin with {', '.join(starts)}){_ESCAPE}")
    if source not in allowed:
        return wrong(f"{quoted(written)} is not allowed here; allowed are references to {', '.join(allowed)}")
    reference = Reference(source, name)
    match reference.source:
        case "vars" | "matrix":
            values = scope.vars if source == "vars" else scope.matrix
            if values is None:
                return wrong(f"{quoted(written)}: the job has no matrix")
            if name not in values:
                return wrong(f"{quoted(written)}: there is no such name in {source}", name, values)
            return values[name]
        case "event":
            if name not in EVENT_FIELDS:
                return wrong(f"{quoted(written)}: an event has no {quoted(name)}", name, EVENT_FIELDS)
            return reference if scope.event is None else str(getattr(scope.event, name))
        case "needs":
            output = _OUTPUT.fullmatch(name)
            if output is None:
                return wrong(f"{quoted(written)} is not like ${{needs.JOB.KEY}}")
            if output[1] not in scope.needs:
                message = f"{quoted(written)}: {quoted(output[1])} is not in needs"
                return wrong(message, output[1], scope.needs)
            if output[1] in scope.matrix_jobs:
                return wrong(
                    f"{quoted(written)}: {quoted(output[1])} has a matrix, so its outputs "
                    "have no single value"
                )
        case "secret":
            if _SECRET.fullmatch(name) is None:
                return wrong(
                    f"{quoted(written)} is not like ${{secret:path:key}}, of letters, digits, "
                    "'/', '_' and '-'"
                )
        case "env":
            if _VARIABLE.fullmatch(name) is None:
                return wrong(f"{quoted(written)}: {quoted(name)} is not a variable name")
            return scope.env.get(name, reference)
    return reference


def _split(inner: str) -> tuple[str, str]:
    for separator, sources in ((":", ("secret", "env")), (".", ("vars", "matrix", "event", "needs"))):
        source, mark, name = inner.partition(separator)
        if mark and source in sources:
            return source, name
    return "", inner
