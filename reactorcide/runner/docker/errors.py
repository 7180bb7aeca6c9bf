"""Translation of the SDK's errors: into those of the job and those of the engine."""

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator

import docker.errors
import requests

from reactorcide.domain.errors import EngineBusy, EngineUnavailable, JobFailed
from reactorcide.lib.tar import DamagedTar
from reactorcide.runner import ContainerGone, ImageMissing

_JOBS_FAULT = re.compile(
    r"unable to find (user|group)|no matching entries in (passwd|group)|not a directory|file name too long|"
    r"too many (levels of )?(symbolic )?links|exec format error|uids and gids must be in range|"
    # A path that is mounted into each container is a link in the image.
    r"error mounting .* to rootfs at|error reopening /dev/null inside container",
    re.IGNORECASE,
)
_HOST_PATH = re.compile(
    # From the start of a path up to the container's own part of it, which says what is wrong.
    r"(?<![^\s\"'`:=(,])(?:"
    r"/[^\s\"']*?/(?:overlay2|overlayfs|fuse-overlayfs|vfs|btrfs|zfs|volumes)/[^\s\"']*?"
    r"/(?:merged|_data|diff|rootfs)(?![\w.-])"
    r"|/[^\s\"':,]*/[0-9a-f]{64}[^\s\"':,]*)"
)
_HOSTS_FAULT = re.compile(
    r"no space left|cannot allocate memory|too many open files|resource temporarily unavailable|"
    r"is already in use|input/output error",
    re.IGNORECASE,
)
_MAX_SEARCHED_CHARS = 4000
_MAX_REASON_CHARS = 500


class translated:
    """Translate the SDK's errors; ``action`` names the failed call. The caller handles "not found"."""

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        return None

    def __exit__(self, exc_type: object, exc: BaseException | None, traceback: object) -> None:
        if isinstance(exc, docker.errors.NotFound) or _is_being_removed(exc):
            return
        if isinstance(exc, docker.errors.APIError):
            explanation = one_line(str(exc.explanation or exc))
            # The status code does not tell the cause: a user that is not in the image is a 500, and a full
            # disk may be a 400, while the image's directories are mounted.
            is_hosts = _HOSTS_FAULT.search(explanation) is not None
            if is_hosts or (exc.is_server_error() and _JOBS_FAULT.search(explanation) is None):
                raise EngineUnavailable(f"the Docker Engine could not {self._action}: {explanation}") from exc
            raise JobFailed(f"the Docker Engine refused to {self._action}: {explanation}") from exc
        if isinstance(exc, DamagedTar):
            raise EngineUnavailable(f"the Docker Engine's answer is damaged ({self._action}): {exc}") from exc
        if _is_timeout(exc):
            raise EngineBusy(
                f"the Docker Engine has not answered in time when asked to {self._action}; it may be busy"
            ) from exc
        if isinstance(exc, docker.errors.DockerException | requests.RequestException | OSError):
            reason = one_line(str(exc))
            # Its own limit is not the engine's fault. The SDK wraps the error, and keeps its words.
            is_ours = os.strerror(errno.EMFILE) in reason
            advice = "raise this service's limit (ulimit -n)" if is_ours else "is it running?"
            raise EngineUnavailable(
                f"the Docker Engine does not answer ({self._action}): {reason}; {advice}"
            ) from exc


class gone_if_missing:
    """Turn the engine's "not found" and "marked for removal" into ``ContainerGone``."""

    def __init__(self, container_id: str) -> None:
        self._container_id = container_id

    def __enter__(self) -> None:
        return None

    def __exit__(self, exc_type: object, exc: BaseException | None, traceback: object) -> None:
        if isinstance(exc, docker.errors.NotFound) or _is_being_removed(exc):
            raise ContainerGone(self._container_id) from exc


class ignoring:
    """Ignore answers with these status codes: the requested state exists already."""

    def __init__(self, *status_codes: int) -> None:
        self._status_codes = status_codes

    def __enter__(self) -> None:
        return None

    def __exit__(self, exc_type: object, exc: BaseException | None, traceback: object) -> bool:
        return isinstance(exc, docker.errors.APIError) and exc.status_code in self._status_codes


def one_line(text: str) -> str:
    """Return the engine's message on one line, shortened, without paths of its host."""
    with contextlib.suppress(ValueError, AttributeError):
        text = json.loads(text)["message"]
    # Jobs must not see where the engine stores containers and volumes on its host.
    return _HOST_PATH.sub("", " ".join(text.split())[:_MAX_SEARCHED_CHARS])[:_MAX_REASON_CHARS]


def _is_timeout(error: BaseException | None) -> bool:
    """Return whether an engine accepted the connection but did not answer in time."""
    if isinstance(error, requests.ConnectTimeout):
        return False
    # A timeout in the middle of a body is a lost connection for the SDK.
    lost = isinstance(error, requests.ConnectionError) and "timed out" in str(error)
    return lost or isinstance(error, requests.Timeout | TimeoutError)


def _is_being_removed(error: object) -> bool:
    return isinstance(error, docker.errors.APIError) and "marked for removal" in str(error.explanation)


@contextlib.contextmanager
def missing_image(image: str) -> Iterator[None]:
    """Raise ``ImageMissing`` if a container could not be created because its image is not there."""
    try:
        yield
    except docker.errors.NotFound as exc:
        if "image" not in str(exc.explanation).lower():
            raise EngineUnavailable(f"the Docker Engine could not create a container: {exc}") from exc
        raise ImageMissing(image) from exc
