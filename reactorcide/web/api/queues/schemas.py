"""The schemas of queues."""

from pydantic import Field

from reactorcide.web.api.schemas import Amount, Count, Schema


class QueueResponse(Schema):
    """A queue, with counts of the jobs that the caller may see."""

    queue_name: str
    waiting: Count
    running: Count
    oldest_wait_seconds: Amount | None


class QueueListResponse(Schema):
    """The queues with unfinished jobs."""

    queues: list[QueueResponse]
    truncated: bool = Field(default=False, description="There are more queues; these are the first by name.")
