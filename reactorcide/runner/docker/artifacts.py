"""Whether a container's artifacts directory has changed, which is known without reading the artifacts."""

import os
from collections.abc import Mapping
from typing import Any

from reactorcide.domain.jobs import ARTIFACTS_DIR
from reactorcide.runner.docker import archives
from reactorcide.runner.docker.client import EngineClient


class ArtifactsDirectories:
    """The state of the artifacts directories of containers before their commands. Thread-safe.

    The directory is a volume. Its state is read from this host where the volume is here, and else from the
    engine, which for a container that does not run has to mount its file system: 16 ms in place of none.
    The name of a volume is random, so a path on this host that is like the engine's is the same volume.
    """

    def __init__(self, client: EngineClient) -> None:
        self._client = client
        self._paths: dict[str, str] = {}
        self._states: dict[str, object] = {}

    def started(self, container_id: str, details: Mapping[str, Any]) -> None:
        """Remember the state of a container that was started, and as yet was handed no command.

        ``details`` is the engine's description of it. Raises what the engine's client raises.
        """
        mounts = details["Mounts"]
        path = next((item["Source"] for item in mounts if item["Destination"] == ARTIFACTS_DIR), None)
        if path is not None:
            self._paths[container_id] = str(path)
        self._states[container_id] = self._state(container_id)

    def are_watched(self, container_id: str) -> bool:
        """Return whether this process has started a container, and not removed it."""
        return container_id in self._states

    def written(self, container_id: str) -> None:
        """Forget the state, because something is put into the container."""
        self._states.pop(container_id, None)

    def before_command(self, container_id: str) -> None:
        """Remember the state of a warm container, unless it is known."""
        if container_id not in self._states:
            self._states[container_id] = self._state(container_id)

    def are_unchanged(self, container_id: str) -> bool:
        """Return whether the directory is as it was before the command; ``False`` if that is unknown.

        Raises what the engine's client raises.
        """
        before = self._states.get(container_id)
        return before is not None and before == self._state(container_id)

    def removed(self, container_id: str) -> None:
        """Forget a container."""
        self._paths.pop(container_id, None)
        self._states.pop(container_id, None)

    def _state(self, container_id: str) -> object:
        """Return what differs after an entry of the directory was added, renamed or removed."""
        path = self._paths.get(container_id)
        if path is not None:
            try:
                status = os.stat(path)
            except OSError:
                # The engine is elsewhere, or its directory not for this user.
                del self._paths[container_id]
            else:
                return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
        return archives.modified_at(self._client.api(), container_id, ARTIFACTS_DIR)
