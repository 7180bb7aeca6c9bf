"""The schemas of queues."""

from pydantic import BaseModel, Field

from reactorcide.web.api.schemas import Amount, Count


class QueueResponse(BaseModel):
    """A queue, with counts of the jobs that the caller may see."""

    queue_name: str
    waiting: Count
    running: Count
    oldest_wait_seconds: Amount | None


class QueueListResponse(BaseModel):
    """The queues with unfinished jobs."""

    queues: list[QueueResponse]
    truncated: bool = Field(default=False, description="There are more queues; these are the first by name.")
