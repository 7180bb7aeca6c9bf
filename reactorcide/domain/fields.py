"""What is declared of a field of a job, beside its name, its type and its default."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

SourceType = Literal["git", "copy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """The option of ``reactorcide submit`` that gives a field as it is."""

    name: str
    """With its dashes; a field that is true or false has one with ``no-``, too."""
    help: str
    metavar: str | None = None

    @property
    def parameter(self) -> str:
        """The name of the option's value in Python."""
        return self.name.lstrip("-").replace("-", "_")


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What is declared of a field beside its name, its type and its default."""

    help: str | None = None
    """In the API's document."""
    limits: Mapping[str, Any] = field(default_factory=dict)
    """What a value has to be: ``ge``, ``le``, ``min_length``, ``max_length``, ``pattern``."""
    schema: Mapping[str, Any] = field(default_factory=dict)
    """What the document says further of a request's value, as JSON Schema; code checks it."""
    item_limits: Mapping[str, Any] = field(default_factory=dict)
    item_schema: Mapping[str, Any] = field(default_factory=dict)
    """Both of each item of a list."""
    answer_schema: Mapping[str, Any] = field(default_factory=dict)
    """What the document says of the value in an answer."""
    source_type: SourceType | None = None
    """The source that it belongs to: with another one it must be absent."""
    json_name: str | None = None
    """In the API, where that is not the field's own name."""
    json_type: Any = None
    """In the API, where that is not the field's own type."""
    request_type: Any = None
    """In a request, where that is not as in an answer."""
    json_default: Any = ...
    """In a request, where that is not the field's own default (``...``); ``None``: the service decides."""
    title: str | None = None
    """What ``jobs show`` shows it as; ``None`` shows it nowhere, or in a way of its own."""
    option: Option | None = None
    example: Any = None
    """In an answer."""


@dataclass(frozen=True, slots=True)
class JobField:
    """One field of ``JobDefinition``."""

    name: str
    type: Any
    """Without ``None``, which is a value of those whose default it is."""
    default: Any
    """``...`` where it has none."""
    about: About

    @property
    def json_name(self) -> str:
        """The name in the API."""
        return self.about.json_name or self.name

    def given(self, value: Any, source_type: SourceType) -> Any:
        """Return the value in the definition for that of a request, which is ``None`` where it is left out.

        ``None`` where the service decides.
        """
        if value is not None:
            return value
        if self.about.source_type not in (None, source_type):
            return self.default
        return self.json_default

    @property
    def json_default(self) -> Any:
        """The value of a request that leaves the field out; ``...`` where it must not."""
        return self.default if self.about.json_default is ... else self.about.json_default
