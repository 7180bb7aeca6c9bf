"""The declaration of a job's field: everything beside its name, type and default."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from reactorcide.lib.records import record

SourceType = Literal["git", "copy"]


@record(kw_only=True)
class Option:
    """The option of ``reactorcide submit`` for a field."""

    name: str
    """With its dashes; a boolean field also has the option with ``no-``."""
    help: str
    metavar: str | None = None

    @property
    def parameter(self) -> str:
        """The name of the option's value in Python."""
        return self.name.lstrip("-").replace("-", "_")


@record(kw_only=True)
class About:
    """The declaration of a field, beside its name, type and default."""

    help: str | None = None
    """The description in the OpenAPI document."""
    limits: Mapping[str, Any] = field(default_factory=dict)
    """Constraints of a value: ``ge``, ``le``, ``min_length``, ``max_length``, ``pattern``."""
    schema: Mapping[str, Any] = field(default_factory=dict)
    """Further JSON Schema of a request's value, for the document; code checks it."""
    item_limits: Mapping[str, Any] = field(default_factory=dict)
    item_schema: Mapping[str, Any] = field(default_factory=dict)
    """The same two for each item of a list."""
    answer_schema: Mapping[str, Any] = field(default_factory=dict)
    """JSON Schema of the value in an answer."""
    source_type: SourceType | None = None
    """The source type of the field; with another one the field must be absent."""
    json_name: str | None = None
    """The name in the API, if it differs from the field's name."""
    json_type: Any = None
    """The type in the API, if it differs from the field's type."""
    request_type: Any = None
    """The type in a request, if it differs from that in an answer."""
    json_default: Any = ...
    """The default in a request; ``...``: the field's own default, ``None``: the service decides."""
    title: str | None = None
    """The title in ``jobs show``; ``None``: not shown, or shown by code of its own."""
    option: Option | None = None
    example: Any = None
    """An example value in an answer."""


@record
class JobField:
    """One field of ``JobDefinition``."""

    name: str
    json_name: str
    """The name in the API."""
    type: Any
    """The type without ``None``. A field whose default is ``None`` may be ``None``."""
    default: Any
    """The default; ``...`` if there is none."""
    about: About

    def from_request(self, value: Any, source_type: SourceType) -> Any:
        """Return the value for the definition; ``value`` is that of a request, ``None`` if it is left out.

        Returns ``None`` if the service decides.
        """
        if value is not None:
            return value
        if self.about.source_type not in (None, source_type):
            return self.default
        return self.json_default

    @property
    def json_default(self) -> Any:
        """The value if a request leaves the field out; ``...`` if the field is required."""
        return self.default if self.about.json_default is ... else self.about.json_default
