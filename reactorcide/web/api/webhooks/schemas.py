"""The schemas of webhooks."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from reactorcide.domain.errors import InvalidInput
from reactorcide.web.api.schemas import Body, Count, Cursor, Id, Query, Schema, ShortText, Time

_Url = Annotated[str, Field(max_length=2048, json_schema_extra={"pattern": r"^https?://[!-~]+$"})]
_Events = Annotated[list[Literal["run", "job", "failure", "recovery"]], Field(min_length=1, max_length=4)]
_Projects = Annotated[list[ShortText], Field(min_length=1, max_length=100)]
_CHANGEABLE = ("url", "events", "projects")


class WebhookRequest(Body):
    """A webhook to create."""

    url: _Url = Field(description="Messages are sent to it by POST.")
    events: _Events = Field(
        description="`run`, `job`: each status; `failure`: a run has failed; `recovery`: one has completed "
        "whose predecessor had failed."
    )
    projects: _Projects | None = Field(
        default=None, description="Names or ids of projects that you own; for admins by default all."
    )


class WebhookChange(Body):
    """Changes to a webhook; at least one field."""

    model_config = ConfigDict(
        json_schema_extra={
            "minProperties": 1,
            "not": {"properties": {name: {"type": "null"} for name in _CHANGEABLE}},
        }
    )

    url: _Url | None = None
    events: _Events | None = None
    projects: _Projects | None = None

    @model_validator(mode="after")
    def _check(self) -> "WebhookChange":
        if all(getattr(self, name) is None for name in _CHANGEABLE):
            raise InvalidInput("nothing to change: give url, events or projects")
        return self


class WebhookResponse(Schema):
    """A webhook."""

    webhook_id: Id
    user_id: Id = Field(description="The creator, who must be an owner of the projects, or an admin.")
    url: str
    events: list[str]
    project_ids: list[Id] | None = Field(description="`null`: all.")
    problem: str | None = Field(description="Why the last message was not delivered; `null` if it was.")
    disabled_at: Time | None = Field(
        description="When it was disabled, because its address answered 410; a change enables it again."
    )
    created_at: Time


class RenewedSecretResponse(Schema):
    """A new secret."""

    secret: str = Field(description="What messages are signed with; it is not shown again.")


class NewWebhookResponse(WebhookResponse):
    """A webhook that was created."""

    secret: str = Field(description="What its messages are signed with; it is not shown again.")


class WebhookListResponse(Schema):
    """All webhooks of the caller; for admins those of all users."""

    webhooks: list[WebhookResponse]


class MessageResponse(Schema):
    """A message of a webhook."""

    message_id: Id
    type: str = Field(description="Like `run.failed`, `job.completed`, `failure`, `recovery`.")
    body: str = Field(description="JSON, as it is sent.")
    created_at: Time
    owed_since: Time | None = Field(description="`null`: it was sent, or will not be.")
    failures: Count = Field(description="The number of failures in a row.")
    problem: str | None = Field(description="The reason of the last failure.")
    sent_at: Time | None


class MessageListResponse(Schema):
    """A page of messages, newest first."""

    messages: list[MessageResponse]
    next_cursor: Cursor | None


class WebhookPath(Schema):
    """The id of a webhook, in the path."""

    webhook_id: Id


class MessagePath(WebhookPath):
    """The ids of a webhook and of one of its messages, in the path."""

    message_id: Id


class MessageListQuery(Query):
    """A page of messages."""

    limit: int = Field(default=20, ge=1, le=200)
    cursor: Cursor | None = Field(default=None, description="The `next_cursor` of the page before.")
