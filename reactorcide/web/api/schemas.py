"""Base classes and types of the schemas; the same models validate and document."""

from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, StringConstraints, model_validator
from pydantic_core import CoreSchema

from reactorcide.web.errors import MAX_DETAILS

MAX_FILTER_CHARS = 255
NO_NUL = r"^[^\x00]*$"
"""What every database can store as text."""
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=NO_NUL)]
QueueName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
Id = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Sha256 = Annotated[str, Field(json_schema_extra={"pattern": "^[0-9a-f]{64}$"})]
Amount = Annotated[float, Field(json_schema_extra={"minimum": 0})]
Cursor = Annotated[
    str, Field(json_schema_extra={"pattern": r"^[0-9]{1,15}\.[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"})
]
Count = Annotated[int, Field(json_schema_extra={"minimum": 0})]


class Schema(BaseModel):
    """What a request or an answer consists of."""

    # Built when it is first used: all of them together are a third of the time to import the API.
    model_config = ConfigDict(defer_build=True)


class Body(Schema):
    """A JSON object: unknown fields are refused, nothing is coerced, ``null`` means absent."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        if isinstance(data, dict):
            # Unknown fields stay, and are refused.
            return {
                name: value
                for name, value in data.items()
                if value is not None or name not in cls.model_fields
            }
        return data

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return pydantic's schema, with ``null`` allowed for each optional field."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        for name, field in schema["properties"].items():
            if name in schema.get("required", ()):
                continue
            about = {key: field.pop(key) for key in ("title", "description", "default") if key in field}
            choices = [choice for choice in field.pop("anyOf", [{}]) if choice != {"type": "null"}]
            if len(choices) == 1:
                # The field's own keywords.
                choices[0] |= field
            schema["properties"][name] = about | {"anyOf": [*choices, {"type": "null"}]}
        return schema


class Query(Schema):
    """A query string: unknown parameters are refused."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    @cache
    def model_json_schema(  # type: ignore[override]  # a cached function has no signature
        cls, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Return pydantic's schema from a cache: every request reads it, and it is slow to build."""
        return super().model_json_schema(*args, **kwargs)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return pydantic's schema without ``null``, which a query string cannot express."""
        return _without_null(handler.resolve_ref_schema(handler(core_schema)))


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    for field in schema.get("properties", {}).values():
        choices = [choice for choice in field.get("anyOf", []) if choice != {"type": "null"}]
        if len(choices) == 1:
            del field["anyOf"]
            field.update(choices[0])
        if field.get("default", ...) is None:
            del field["default"]
    return schema


class Header(Query):
    """The header fields that a route reads."""

    # Requests have others, too.
    model_config = ConfigDict(extra="ignore")


class NoQuery(Query):
    """A query string without parameters."""


class ErrorDetail(Schema):
    """A wrong field."""

    field: str
    message: str


class ErrorResponse(Schema):
    """An error: its code, a sentence, and in `details` the wrong fields, if any."""

    error: str
    message: str
    details: list[ErrorDetail] = Field(default_factory=list, max_length=MAX_DETAILS)
