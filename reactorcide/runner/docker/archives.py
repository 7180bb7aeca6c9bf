"""Files of a container, read as tar streams."""

import io
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import docker
import docker.utils
import requests

from reactorcide.domain.errors import JobFailed
from reactorcide.lib.sizes import format_size
from reactorcide.lib.tar import read_tar
from reactorcide.runner import ContainerGone
from reactorcide.runner.docker.client import API_TIMEOUT_S, closed_on_error
from reactorcide.runner.docker.errors import gone_if_missing, translated

_CHUNK_BYTES = 1 << 18
_MAX_USERS_FILE_BYTES = 1 << 20
_MAX_FIELDS = 7
"""Of a line in a list of users; none that is needed comes later."""
_GO_MODE_DIRECTORY = 0x80000000
_GO_MODE_TYPE = 0x8F280000
"""The bits of the engine's file modes that a regular file has not (os.ModeType of Go)."""


def modified_at(api: Any, container_id: str, path: str) -> str:
    """Return when a path was modified last, by the engine's clock."""
    response = _head(api, container_id, path)
    api._raise_for_status(response)
    return str(_stat(response)["mtime"])


def look(api: Any, container_id: str, path: str) -> dict[str, Any] | None:
    """Return the engine's description of a path, no link followed; ``None`` if there is nothing."""
    with gone_if_missing(container_id), translated(f"look at {path}"):
        response = _head(api, container_id, path)
        if response.status_code == 404:
            check_exists(api, container_id)
            return None
        api._raise_for_status(response)
    return _stat(response)


def is_directory(api: Any, container_id: str, path: str) -> bool:
    """Return whether a path is a directory, no link followed."""
    stat = look(api, container_id, path)
    return stat is not None and bool(stat["mode"] & _GO_MODE_DIRECTORY)


def read_file(api: Any, container_id: str, path: str, max_bytes: int) -> bytes | None:
    """See ``Runner.read_file``."""
    # The engine would read the whole of what may be very large, or has no end, to put it into a tar.
    stat = look(api, container_id, path)
    if stat is None:
        return None
    if stat["mode"] & _GO_MODE_TYPE:
        raise JobFailed(f"{path} is not a regular file")
    if stat["size"] > max_bytes:
        raise JobFailed(f"{path} is larger than {format_size(max_bytes)}")
    response = open_archive(api, container_id, path)
    if response is None:
        return None
    with translated(f"read {path}"):
        return b"".join(b"".join(entry.chunks) for entry in read_tar(chunks(response)))


def _head(api: Any, container_id: str, path: str) -> requests.Response:
    # The SDK has no typed call for this.
    url = api._url("/containers/{0}/archive", container_id)
    response: requests.Response = api.head(url, params={"path": path}, timeout=API_TIMEOUT_S)
    if response.status_code >= 400 and response.status_code != 404:
        # Why, and with that whose fault it is, comes only with a body.
        with api._get(url, params={"path": path}, stream=True) as answer:
            api._raise_for_status(answer)
    return response


def open_archive(api: Any, container_id: str, path: str) -> requests.Response | None:
    """Open a path of a container as a tar stream; ``None`` if the container has no such path.

    The SDK's typed call keeps the response, which has to be closed, to itself.
    """
    with gone_if_missing(container_id), translated(f"read {path}"):
        response: requests.Response = api._get(
            api._url("/containers/{0}/archive", container_id),
            params={"path": path},
            # Asked for gzip, as by default, the engine packs at 30 MB/s.
            headers={"Accept-Encoding": "identity"},
            stream=True,
        )
        if response.status_code == 404:
            response.close()
            check_exists(api, container_id)
            return None
        with closed_on_error(response):
            api._raise_for_status(response)
    return response


def chunks(response: requests.Response) -> Generator[bytes, None, None]:
    """Yield the bytes of an opened archive, and close it."""
    with response, translated("read files of the container"):
        yield from response.iter_content(_CHUNK_BYTES)


def whole(api: Any, container_id: str, response: requests.Response) -> Generator[bytes, None, None]:
    """Yield the bytes of an opened archive, and close it.

    Raises ``ContainerGone`` at its end if somebody removes the container: its files may have gone one by one.
    """
    yield from chunks(response)
    with translated("inspect a container"):
        check_exists(api, container_id)


def check_exists(api: docker.APIClient, container_id: str) -> None:
    """Raise ``ContainerGone`` unless the container exists, after one of its paths was not found."""
    with gone_if_missing(container_id):
        state = api.inspect_container(container_id)["State"]
    # One that is being removed has lost its files already.
    if state["Dead"] or state["Status"] in ("removing", "dead"):
        raise ContainerGone(container_id)


def records(api: docker.APIClient, container_id: str, path: str) -> Iterator[Sequence[str]]:
    """Yield the lines of a file of a container, split at colons; none where there is no such file.

    One at a time: a file of newlines alone has a million. Raises ``JobFailed`` for a file that is larger than
    any list of users.
    """
    response = open_archive(api, container_id, path)
    if response is not None and (target := _stat(response)["linkTarget"]):
        response.close()
        # The engine has followed all links, inside of the container, but gives the first one.
        response = open_archive(api, container_id, str(target))
    if response is None:
        return
    with response:
        if _stat(response)["mode"] & _GO_MODE_TYPE:
            # The engine itself would wait for a FIFO's other end, and with it this container's start.
            raise JobFailed(f"{path} of the image is not a regular file: its user cannot be looked up")
        if _stat(response)["size"] > _MAX_USERS_FILE_BYTES:
            limit = format_size(_MAX_USERS_FILE_BYTES)
            raise JobFailed(f"{path} of the image is larger than {limit}, so its user cannot be looked up")
        content = b"".join(
            b"".join(entry.chunks) for entry in read_tar(chunks(response)) if entry.kind == "file"
        )
    for line in io.BytesIO(content):
        yield line.decode(errors="replace").rstrip("\r\n").split(":", _MAX_FIELDS)


def _stat(response: requests.Response) -> dict[str, Any]:
    """Return the engine's description of the path that it answers with."""
    stat: dict[str, Any] = docker.utils.decode_json_header(response.headers["x-docker-container-path-stat"])
    return stat
