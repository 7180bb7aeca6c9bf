"""Pulling and removing images."""

import re
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

import docker
import docker.errors
import docker.utils

from reactorcide.domain.errors import InfrastructureError, JobFailed, ReactorcideError
from reactorcide.runner.docker.errors import ignoring, one_line, translated
from reactorcide.threads import start_thread

_PULL_CHECK_S = 0.2


def pull(
    api: docker.APIClient, image: str, progress: Callable[[str], None], check: Callable[[], None]
) -> str:
    """See ``Runner.pull``."""
    progress(f"pulling image {image}")
    last_status: dict[str, str] = {}
    for event in _pull_events(api, image, check):
        if "error" in event:
            raise _pull_failure(image, str(event["error"]))
        layer, status = str(event.get("id", "")), str(event.get("status", ""))
        # A line for each step of a layer, not for each of its hundreds of progress bars.
        if status and last_status.get(layer) != status:
            last_status[layer] = status
            progress(f"{layer}: {status}" if layer else status)
    try:
        with translated("inspect an image"):
            return current_id(api, image)
    except docker.errors.NotFound as exc:
        raise InfrastructureError(f"image {image} was pulled, and somebody removed it") from exc


def remove(api: docker.APIClient, image: str, image_id: str) -> bool:
    """See ``Runner.remove_image``."""
    with translated("remove an image"), ignoring(404):
        if current_id(api, image) == image_id:
            with ignoring(409):
                api.remove_image(image)
                return True
            return False
    return True


def current_id(api: Any, image: str) -> str:
    """Return the current id of an image name; ``Any``, because the SDK has no type for its details."""
    return str(api.inspect_image(image)["Id"])


def _pull_events(api: docker.APIClient, image: str, check: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """Yield the engine's events of a pull, and call ``check`` while none arrives, too.

    A thread reads them: if the registry hangs, the engine does not even begin its answer, and the request
    cannot be cancelled. An abandoned thread ends with the pull.
    """
    repository, tag = docker.utils.parse_repository_tag(image)
    events: SimpleQueue[dict[str, Any] | Exception | None] = SimpleQueue()

    def read() -> None:
        try:
            with translated(f"pull {image}"):
                try:
                    # Reload, so that a `docker login` takes effect without a restart.
                    api.reload_config()
                    for event in api.pull(repository, tag=tag or "latest", stream=True, decode=True):
                        events.put(event)
                except docker.errors.APIError as exc:
                    raise _pull_failure(image, str(exc.explanation)) from exc
                except docker.errors.DockerException as exc:
                    raise InfrastructureError(
                        f"the credentials to pull {image} could not be read: {one_line(str(exc))}"
                    ) from exc
            events.put(None)
        except Exception as exc:
            events.put(exc)

    start_thread(read, f"pull-{image}")
    while True:
        check()
        try:
            event = events.get(timeout=_PULL_CHECK_S)
        except Empty:
            continue
        if event is None:
            return
        if isinstance(event, Exception):
            raise event
        yield event


def _pull_failure(image: str, reason: str) -> ReactorcideError:
    """Return the error of a failed pull: no such image, or a failure that is worth another try."""
    reason = one_line(reason)
    # First, because for a missing login some engines also say that the image may not exist.
    wants_login = re.search(r"unauthorized|no basic auth|authentication required", reason, re.I)
    if not wants_login and re.search(
        r"not found|manifest unknown|does not exist|pull access denied|invalid ref", reason, re.I
    ):
        return JobFailed(f"image not found: {image} ({reason})")
    if wants_login or "denied" in reason.lower():
        return JobFailed(
            f"image {image} may not be pulled: {reason}; the service's user has to `docker login` there"
        )
    return InfrastructureError(f"image {image} is not here and could not be pulled: {reason}")
