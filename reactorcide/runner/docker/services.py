"""The containers of a job's services, and the checks whether these are ready."""

from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import Any

import docker.errors
from docker.types import LogConfig

from reactorcide.runner import ContainerSpec, Exit, ImageFacts, ServiceSpec
from reactorcide.runner.docker.client import EngineClient
from reactorcide.runner.docker.errors import gone_if_missing, ignoring, missing_image, translated
from reactorcide.runner.docker.labels import LABEL_SERVICE, attempt_labels, container_name
from reactorcide.runner.docker.states import health_check

_NO_PROGRAM = 127
_LOOK_EVERY_S = 0.05
_END_REPORTED_S = 1.0
"""Within this time the engine knows that a container has ended."""

_SERVICE_LOG = {"max-size": "8m", "max-file": "1"}
"""The engine stores the end of a service's output, so that endless output does not fill the disk."""


class ServiceContainers:
    """Creates, starts and checks the containers of services. Thread-safe.

    ``limits`` returns the limits of a job as options of the engine; ``exit_now`` is ``Runner.exit_now``.
    """

    def __init__(
        self,
        client: EngineClient,
        limits: Callable[[ContainerSpec], dict[str, Any]],
        exit_now: Callable[[str], Exit | None],
    ) -> None:
        self._client = client
        self._limits = limits
        self._exit_now = exit_now
        self._checks: dict[str, Any] = {}
        """The connection of the last check of a service, by its container."""

    def create(self, spec: ServiceSpec) -> str:
        """See ``Runner.create_service``."""
        api = self._client.api()
        host_config = api.create_host_config(
            **self._limits(spec.job),
            network_mode=f"container:{spec.job_container_id}",
            log_config=LogConfig(type=LogConfig.types.JSON, config=_SERVICE_LOG),
        )
        with missing_image(spec.image), translated("create the container of a service"):
            created = api.create_container(
                spec.image,
                name=container_name(spec.job.job_id, spec.job.attempt, spec.name),
                command=None if spec.command is None else list(spec.command),
                environment=dict(spec.env),
                # We make the check that the image names: the engine makes the first one only after 30 s.
                healthcheck={"test": ["NONE"]},
                labels=attempt_labels(spec.job) | {LABEL_SERVICE: spec.name},
                host_config=host_config,
            )
        return str(created["Id"])

    def start(self, container_id: str) -> None:
        """See ``Runner.start_service``."""
        with gone_if_missing(container_id), translated("start the container of a service"):
            self._client.api().start(container_id)

    def image_facts(self, image: str) -> ImageFacts:
        """See ``Runner.image_facts``."""
        api: Any = self._client.api()  # its types do not say what this call returns
        with translated("inspect an image"):
            config = api.inspect_image(image).get("Config") or {}
        return ImageFacts(
            health_check((config.get("Healthcheck") or {}).get("Test") or []),
            frozenset(config.get("ExposedPorts") or ()),
        )

    def begin_check(self, container_id: str, command: Sequence[str]) -> str | None:
        """See ``Runner.begin_check``."""
        api = self._client.api()
        # 404, 409: it has ended, which the caller will see.
        with translated("check a service"), ignoring(404, 409):
            # Podman tells how a detached command has ended only minutes later, and attaches to nothing else.
            is_attached = self._client.is_podman()
            created = api.exec_create(
                container_id, list(command), stdout=False, stderr=False, stdin=is_attached
            )
            check_id = str(created["Id"])
            self.close_check(container_id)
            try:
                if is_attached:
                    self._checks[container_id] = api.exec_start(check_id, socket=True)
                else:
                    api.exec_start(check_id, detach=True)
            except docker.errors.APIError:
                # Where the container ends just then, the engine hands on whatever runc says, with any status.
                if self._ends_now(container_id):
                    return None
                raise
            return check_id
        return None

    def _ends_now(self, container_id: str) -> bool:
        deadline = monotonic() + _END_REPORTED_S
        while self._exit_now(container_id) is None:
            if monotonic() >= deadline:
                return False
            sleep(_LOOK_EVERY_S)
        return True

    def close_check(self, container_id: str) -> None:
        """Close the connection of the last check in a container; safe to repeat."""
        connection = self._checks.pop(container_id, None)
        if connection is not None:
            connection.close()
            # The SDK keeps it there, and closes it with the garbage.
            connection._response.close()

    def check_result(self, check_id: str) -> int | None:
        """See ``Runner.check_result``."""
        try:
            with translated("check a service"):
                details = self._client.api().exec_inspect(check_id)
        except docker.errors.NotFound:
            # The engine has forgotten it with its container.
            return _NO_PROGRAM
        return None if details["Running"] or details["ExitCode"] is None else int(details["ExitCode"])

    def output_end(self, container_id: str, max_bytes: int) -> bytes:
        """See ``Runner.output_end``."""
        with gone_if_missing(container_id), translated("read the output of a service"):
            # At most what _SERVICE_LOG keeps.
            output: bytes = self._client.api().logs(container_id, stdout=True, stderr=True)
        return output[-max_bytes:]
