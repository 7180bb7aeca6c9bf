"""The schemas of deliveries."""

from typing import Literal

from pydantic import Field

from reactorcide.domain.deliveries import DeliveryStatus
from reactorcide.web.api.projects.schemas import ProjectPath
from reactorcide.web.api.schemas import Count, Cursor, Header, Id, Query, Schema, Time


class HookPath(Schema):
    """The id of a project, in the path of its webhook; a malformed id is answered like an unknown one."""

    project_id: str


class HookHeader(Header):
    """The header fields of a delivery that several forges share; each forge has others, too."""

    signature: str | None = Field(
        default=None,
        alias="X-Hub-Signature-256",
        description="`sha256=` and the HMAC of the body; GitLab and Gogs have fields of their own.",
    )


class HookResponse(Schema):
    """A received delivery."""

    delivery_id: Id
    status: DeliveryStatus
    outcome: str | None = Field(description="The outcome, if known; for a `ping` what deliveries start.")


class DeliveryPath(ProjectPath):
    """The ids of a project and of one of its deliveries, in the path."""

    delivery_id: Id


class DeliveryListQuery(Query):
    """A page of deliveries."""

    limit: int = Field(default=20, ge=1, le=1000)
    cursor: Cursor | None = Field(default=None, description="The `next_cursor` of the page before.")
    status: Literal["waiting", "started", "ignored", "failed"] | None = None


class DeliveryListItem(Schema):
    """A delivery in a list."""

    delivery_id: Id
    forge_delivery_id: str = Field(description="The forge's own id.")
    event: str = Field(description="The forge's name of the event.")
    size: Count = Field(description="Size of its body in bytes.")
    status: DeliveryStatus = Field(
        description="`waiting`: it will be processed, or retried; `started`: it has started runs; "
        "`ignored`: it starts none; `failed`: it cannot be parsed, or its runs failed at once."
    )
    outcome: str | None = Field(description="A sentence: the outcome, or the reason of the retry.")
    run_ids: list[Id]
    created_at: Time


class DeliveryResponse(DeliveryListItem):
    """A delivery with its headers and body."""

    headers: dict[str, str] = Field(description="By name in lower case; secrets are replaced.")
    body: str = Field(description="The first MiB of the body, without the project's credentials.")
    body_is_cut: bool


class DeliveryListResponse(Schema):
    """A page of deliveries, newest first."""

    deliveries: list[DeliveryListItem]
    total: Count
    limit: Count
    next_cursor: Cursor | None
