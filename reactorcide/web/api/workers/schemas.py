"""The schemas of workers."""

from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from reactorcide.web.api.schemas import Body, Count, Id, QueueName, Schema, Time

_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class WorkerPath(BaseModel):
    """The id or the name of a worker."""

    worker_id: str


class WorkerRequest(Body):
    """A worker on another machine."""

    name: _Name
    queues: list[QueueName] = Field(
        default_factory=list, max_length=1000, description="Queues that it may take jobs from; empty: all."
    )


class NewWorkerResponse(Schema):
    """A worker that is to register, and its token for that, which is shown only now."""

    worker_id: str
    token: str


class WorkerResponse(Schema):
    """A worker, with those of its running jobs that the caller may see."""

    worker_id: str
    host: str
    concurrency: Count
    running_jobs: list[Id]
    warm_containers: Count = Field(description="Containers that have started and wait for its next jobs.")
    last_seen_at: Time
    queues: list[str] = Field(description="The queues that it takes jobs from; empty: all.")
    draining: bool = Field(description="It takes no more jobs.")
    trouble: str | None = Field(description="Why it takes no jobs at the moment, if it does not.")
    version: str | None = Field(description="The version of its program; `null`: that of the service.")


class WorkerListResponse(Schema):
    """The workers."""

    workers: list[WorkerResponse]
