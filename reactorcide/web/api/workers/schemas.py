"""The schemas of workers."""

from pydantic import Field

from reactorcide.web.api.schemas import Count, Id, Schema, Time


class WorkerResponse(Schema):
    """A worker, with those of its running jobs that the caller may see."""

    worker_id: str
    host: str
    concurrency: Count
    running_jobs: list[Id]
    warm_containers: Count = Field(description="Containers that have started and wait for its next jobs.")
    last_seen_at: Time


class WorkerListResponse(Schema):
    """The workers."""

    workers: list[WorkerResponse]
