"""Routes on workers."""

from flask import Response, jsonify

from reactorcide.domain.workers import WorkerView
from reactorcide.jobs import read
from reactorcide.jobs.remote import registry
from reactorcide.lib.clock import rfc3339
from reactorcide.web.api.resource import resource
from reactorcide.web.api.schemas import ErrorResponse, NoQuery
from reactorcide.web.api.workers.schemas import (
    NewWorkerResponse,
    WorkerListResponse,
    WorkerPath,
    WorkerRequest,
)
from reactorcide.web.auth import caller
from reactorcide.web.services import services

api = resource("workers", __name__, tag="service")


@api.get("/workers", responses={200: WorkerListResponse})
def list_workers(query: NoQuery) -> Response:
    """List the workers and the jobs that they run."""
    return jsonify({"workers": [_json(view) for view in services().workers()]})


@api.post("/workers", responses={201: NewWorkerResponse, 409: ErrorResponse})
def add_worker(body: WorkerRequest, query: NoQuery) -> tuple[Response, int]:
    """Add a worker on another machine. Its registration token is valid once, for a day."""
    worker_id, token = registry.add(services().jobs, body.name, body.queues, by=caller().actor)
    return jsonify({"worker_id": worker_id, "token": token}), 201


@api.post("/workers/<worker_id>/drain", responses={204: None})
def drain_worker(path: WorkerPath, query: NoQuery) -> tuple[str, int]:
    """Have a worker on another machine finish its jobs and take no more."""
    registry.drain(services().jobs, path.worker_id, is_draining=True, by=caller().actor)
    return "", 204


@api.post("/workers/<worker_id>/resume", responses={204: None})
def resume_worker(path: WorkerPath, query: NoQuery) -> tuple[str, int]:
    """Have a drained worker take jobs again."""
    registry.drain(services().jobs, path.worker_id, is_draining=False, by=caller().actor)
    return "", 204


@api.delete("/workers/<worker_id>", responses={204: None})
def forget_worker(path: WorkerPath, query: NoQuery) -> tuple[str, int]:
    """Forget a worker on another machine. Its secret is refused from then on."""
    registry.forget(services().jobs, path.worker_id, by=caller().actor)
    return "", 204


def _json(view: WorkerView) -> dict[str, object]:
    return {
        "worker_id": view.worker_id,
        "host": view.host,
        "concurrency": view.concurrency,
        "running_jobs": read.visible(services().jobs, caller(), view.running_job_ids),
        "warm_containers": view.warm_containers,
        "last_seen_at": rfc3339(view.last_seen_ms),
        "queues": list(view.queues),
        "draining": view.is_draining,
        "trouble": view.trouble,
        "version": view.version,
    }
