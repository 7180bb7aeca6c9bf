"""Containers on a Docker Engine, through its API.

Nothing is bind-mounted: sources go in and artifacts come out as tar streams, so that the engine may
as well be on another machine.

Longer than 400 lines, because it is one class with the methods of one protocol, most of them one call of the
engine.
"""

import contextlib
import secrets
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from time import monotonic, sleep
from typing import Any

import docker.errors
import requests
from docker.types import LogConfig, Mount

from reactorcide.domain.errors import EngineUnavailable, JobFailed
from reactorcide.domain.jobs import ARTIFACTS_DIR
from reactorcide.runner import (
    AttachedOutput,
    ContainerInfo,
    ContainerRestarted,
    ContainerSpec,
    Exit,
    ImageFacts,
    Output,
    ServiceSpec,
    Signal,
    Started,
    WarmView,
    handover,
)
from reactorcide.runner.docker import archives, disk, events, images, networks, output, signals, users
from reactorcide.runner.docker.artifacts import ArtifactsDirectories
from reactorcide.runner.docker.client import EngineClient
from reactorcide.runner.docker.errors import gone_if_missing, ignoring, missing_image, translated
from reactorcide.runner.docker.labels import (
    LABEL_INSTANCE,
    LABEL_WARM,
    WARM_PREFIX,
    attempt_labels,
    attempt_of,
    container_info,
    container_name,
    warm_labels,
    warm_name,
)
from reactorcide.runner.docker.services import ServiceContainers
from reactorcide.runner.docker.states import exit_of, may_be_out_of_memory
from reactorcide.runner.docker.warm import WarmPool

_OOM_PATIENCE_S = 3.0
_LOOK_EVERY_S = 0.05
_EVENT_S = 0.25
"""To wait for the event of the end: it comes within 13 ms after the end of the output, or much later."""

# What apt, dpkg, chown, su and a server below port 1024 need. Of the engine's defaults that leaves out those
# to forge packets (NET_RAW), make device files (MKNOD), write to the host's audit log (AUDIT_WRITE), change
# root (SYS_CHROOT) and hand capabilities on (SETPCAP).
_CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETUID",
)


class DockerRunner:
    """A ``Runner`` on the engine that the environment names (``DOCKER_HOST``), or the local one.

    Containers are on ``network`` (``bridge``, ``isolated`` or ``none``), and have ``capabilities`` beside the
    few that most jobs need. ``warm`` is the most containers that wait for jobs. Constructing
    connects to nothing; an engine that is away now may come later.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        max_connections: int = 32,
        network: str = "bridge",
        capabilities: Sequence[str] = (),
        allow_new_privileges: bool = False,
        warm: int = 0,
    ) -> None:
        self._client = EngineClient(environment, max_connections=max_connections)
        # None is the engine's default, which may have no bridge at all.
        self._network = {"bridge": None, "isolated": networks.ISOLATED, "none": "none"}[network]
        self._network_exists = self._network != networks.ISOLATED
        self._capabilities = sorted({*_CAPABILITIES, *capabilities})
        self._security_options = [] if allow_new_privileges else ["no-new-privileges"]
        self._marks: dict[str, str] = {}
        """What the launchers of containers wait for, until these are attached to."""
        self._artifacts = ArtifactsDirectories(self._client)
        self._services = ServiceContainers(self._client, self._limits, self.exit_now)
        self.pool = WarmPool(warm, self)

    def check(self) -> None:
        """See ``Runner.check``."""
        self._client.check()

    def version(self) -> str:
        """Return the engine's version; raises ``EngineUnavailable``."""
        return self._client.version()

    def pull(self, image: str, progress: Callable[[str], None], check: Callable[[], None]) -> str:
        """See ``Runner.pull``."""
        return images.pull(self._client.api(), image, progress, check)

    def remove_image(self, image: str, image_id: str) -> bool:
        """See ``Runner.remove_image``."""
        return images.remove(self._client.api(), image, image_id)

    def create(self, spec: ContainerSpec) -> str:
        """See ``Runner.create``."""
        name = container_name(spec.job_id, spec.attempt)
        container_id = self.pool.take(spec, name)
        if container_id is None:
            container_id = self._create(spec, name, attempt_labels(spec))
            self.pool.created(spec, container_id)
        return container_id

    def create_warm(self, shape: ContainerSpec) -> str:
        """See ``warm.Engine.create_warm``."""
        return self._create(shape, warm_name(), warm_labels(shape.instance_id))

    def _create(self, spec: ContainerSpec, name: str, labels: dict[str, str]) -> str:
        api = self._client.api()
        if not self._network_exists:
            networks.create_isolated(api)
            self._network_exists = True
        mark = secrets.token_hex(16)
        host_config = api.create_host_config(
            **self._limits(spec),
            network_mode=self._network,
            extra_hosts=dict.fromkeys(spec.host_names, "127.0.0.1"),
            # The engine's own copy is what a log is recovered from: with rotation it would lose data. A
            # size has to be named, or the engine's own default would be taken, which may rotate.
            log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": "8192t"}),
            # Anonymous, so that it goes with the container; empty, whatever the image has there.
            mounts=[Mount(ARTIFACTS_DIR, None, type="volume", no_copy=True, labels=labels)],
        )
        with missing_image(spec.image), translated("create a container"):
            created = api.create_container(
                spec.image,
                name=name,
                entrypoint=["/bin/sh"],
                command=handover.launcher(mark),
                stdin_open=True,
                environment=handover.INIT_ENV | handover.configured(spec.env),
                working_dir=spec.working_dir,
                user=spec.user,
                healthcheck={"test": ["NONE"]},
                labels=labels,
                host_config=host_config,
            )
        container_id = str(created["Id"])
        self._marks[container_id] = mark
        return container_id

    def _limits(self, spec: ContainerSpec) -> dict[str, Any]:
        """Return what a job and its services are allowed, each of them."""
        return {
            "init": True,
            "security_opt": self._security_options,
            "cap_drop": ["ALL"],
            "cap_add": self._capabilities,
            "pids_limit": spec.pids_limit,
            "nano_cpus": None if spec.cpu_limit is None else round(spec.cpu_limit * 1e9),
            "mem_limit": spec.memory_limit_bytes,
            # The same number again means no swap, so that the limit is the limit.
            "memswap_limit": spec.memory_limit_bytes,
        }

    def create_service(self, spec: ServiceSpec) -> str:
        """See ``Runner.create_service``."""
        return self._services.create(spec)

    def start_service(self, container_id: str) -> None:
        """See ``Runner.start_service``."""
        self._services.start(container_id)

    def image_facts(self, image: str) -> ImageFacts:
        """See ``Runner.image_facts``."""
        return self._services.image_facts(image)

    def begin_check(self, container_id: str, command: Sequence[str]) -> str | None:
        """See ``Runner.begin_check``."""
        return self._services.begin_check(container_id, command)

    def check_result(self, check_id: str) -> int | None:
        """See ``Runner.check_result``."""
        return self._services.check_result(check_id)

    def output_end(self, container_id: str, max_bytes: int) -> bytes:
        """See ``Runner.output_end``."""
        return self._services.output_end(container_id, max_bytes)

    def exit_now(self, container_id: str) -> Exit | None:
        """See ``Runner.exit_now``."""
        with gone_if_missing(container_id), translated("inspect a container"):
            return exit_of(self._client.api().inspect_container(container_id))

    def owner(self, container_id: str) -> tuple[int, int]:
        """See ``Runner.owner``."""
        warm = self.pool.taken(container_id)
        if warm is not None:
            return warm.owner
        api = self._client.api()
        with gone_if_missing(container_id), translated("inspect a container"):
            user = str(api.inspect_container(container_id)["Config"].get("User") or "")
        return users.identity(user, lambda path: archives.records(api, container_id, path))

    def put(self, container_id: str, tar: Iterator[bytes]) -> None:
        """See ``Runner.put``."""
        # It may change the artifacts directory.
        self._artifacts.written(container_id)
        with gone_if_missing(container_id), translated("copy the source into the container"):
            self._client.api().put_archive(container_id, "/", tar)

    def attach(self, container_id: str) -> AttachedOutput:
        """See ``Runner.attach``."""
        warm = self.pool.taken(container_id)
        if warm is not None:
            return warm.output
        # A container that this runner has not created has none, and is handed nothing.
        return output.attach(self._client.api(), container_id, self._marks.get(container_id, ""))

    def reread(self, container_id: str, *, was_handed_over: bool = True) -> Output:
        """See ``Runner.reread``."""
        return output.reread(self._client.api(), container_id, was_handed_over=was_handed_over)

    def is_acknowledged(self, container_id: str) -> bool:
        """See ``Runner.is_acknowledged``."""
        return output.is_acknowledged(self._client.api(), container_id)

    def is_paused(self, container_id: str) -> bool:
        """See ``Runner.is_paused``."""
        with gone_if_missing(container_id), translated("inspect a container"):
            return bool(self._client.api().inspect_container(container_id)["State"]["Paused"])

    def start(self, container_id: str) -> Started:
        """See ``Runner.start``."""
        api = self._client.api()
        with gone_if_missing(container_id), translated("start the container"):
            warm = self.pool.taken(container_id)
            if warm is not None:
                self._artifacts.before_command(container_id)
                return warm.started
            try:
                api.start(container_id)
            except docker.errors.NotFound as exc:
                if networks.ISOLATED not in str(exc.explanation):
                    raise
                # Somebody removed it. The failed start has closed the output, so the attempt starts again.
                self._network_exists = False
                raise EngineUnavailable(
                    f"the network {networks.ISOLATED} is missing; it is created again"
                ) from exc
            details = api.inspect_container(container_id)
            self._artifacts.started(container_id, details)
        variables = dict(entry.partition("=")[::2] for entry in details["Config"]["Env"] or ())
        return Started(str(details["State"]["StartedAt"]), variables.get("SHLVL"))

    def signal(self, container_id: str, signal: Signal) -> None:
        """See ``Runner.signal``."""
        signals.send(self._client, container_id, signal)

    def wait(self, container_id: str, timeout_s: float, started_at: str | None) -> Exit | None:
        """See ``Runner.wait``."""
        api: Any = self._client.api()  # takes fractions of a second, though its types say otherwise
        with gone_if_missing(container_id), translated("wait for the container"):
            # Of a container of an earlier process the event may be all that is left.
            is_own = self._artifacts.are_watched(container_id)
            if started_at is not None and is_own and self._client.is_local_docker():
                look_s = min(timeout_s / 2, _EVENT_S)
                if events.has_ended_well(api, container_id, started_at, look_s):
                    return Exit(exit_code=0, oom_killed=False)
                timeout_s -= look_s
            with contextlib.suppress(requests.ReadTimeout, requests.ConnectionError):
                # The SDK reports a wait that takes too long as either of the two; an engine that is
                # away makes the next call fail.
                if api.wait(container_id, timeout=timeout_s)["StatusCode"] == 0:
                    # No need to inspect it: without a command no life ends with 0.
                    return Exit(exit_code=0, oom_killed=False)
            details = api.inspect_container(container_id)
            answered_at = monotonic()
            while may_be_out_of_memory(details) and monotonic() < answered_at + _OOM_PATIENCE_S:
                sleep(_LOOK_EVERY_S)
                details = api.inspect_container(container_id)
        if started_at not in (None, details["State"]["StartedAt"]):
            raise ContainerRestarted(container_id)
        ended = exit_of(details)
        return None if ended is None else replace(ended, answered_at=answered_at)

    def disk_bytes(self, container_id: str) -> int | None:
        """See ``Runner.disk_bytes``; this host's file system is asked where it has the files."""
        api: Any = self._client.api()  # has no typed call that asks for the size
        with gone_if_missing(container_id), translated("measure a container"):
            url = api._url("/containers/{0}/json", container_id)
            details = api._result(api._get(url, params={"size": 1}), json=True)
        if not details["State"]["Running"]:
            return None
        # The engine adds up lengths, and blocks may have been reserved beyond a file's end.
        layer = str((details["GraphDriver"].get("Data") or {}).get("UpperDir") or "")
        layer_bytes = max(int(details.get("SizeRw") or 0), disk.tree_bytes(layer))
        volumes = [str(mount["Source"]) for mount in details["Mounts"] if mount["Type"] == "volume"]
        return layer_bytes + sum(map(disk.tree_bytes, volumes)) + disk.hidden_bytes(details)

    def copy_bytes(self, container_id: str) -> int | None:
        """See ``Runner.copy_bytes``."""
        with gone_if_missing(container_id), translated("inspect a container"):
            path = str(self._client.api().inspect_container(container_id).get("LogPath") or "")
        return disk.allocated_bytes(path) or None

    def artifacts(self, container_id: str) -> Generator[bytes, None, None] | None:
        """See ``Runner.artifacts``."""
        api = self._client.api()
        with gone_if_missing(container_id), translated("read the artifacts"):
            try:
                # An adopter has nothing to compare with, and fetches.
                if self._artifacts.are_unchanged(container_id):
                    return None
            except docker.errors.NotFound:
                archives.check_exists(api, container_id)
        response = archives.open_archive(api, container_id, ARTIFACTS_DIR)
        if response is None:
            raise JobFailed(f"{ARTIFACTS_DIR} is not there any more: the command has moved or removed it")
        return archives.whole(api, container_id, response)

    def has_path(self, container_id: str, path: str) -> bool:
        """See ``Runner.has_path``."""
        return archives.look(self._client.api(), container_id, path) is not None

    def read_file(self, container_id: str, path: str, max_bytes: int) -> bytes | None:
        """See ``Runner.read_file``."""
        return archives.read_file(self._client.api(), container_id, path, max_bytes)

    def files(self, container_id: str, path: str) -> Generator[bytes, None, None] | None:
        """See ``Runner.files``."""
        response = archives.open_archive(self._client.api(), container_id, path)
        return None if response is None else archives.chunks(response)

    def remove(self, container_id: str) -> None:
        """See ``Runner.remove``."""
        self.pool.removed(container_id)
        self._marks.pop(container_id, None)
        self._artifacts.removed(container_id)
        self._services.close_check(container_id)
        # 409: somebody else (an earlier call that timed out) is removing it just now.
        with translated("remove the container"), ignoring(404, 409):
            self._client.api().remove_container(container_id, v=True, force=True)

    def list(self, instance_id: str) -> list[ContainerInfo]:
        """See ``Runner.list``."""
        with translated("list the containers"):
            containers = self._client.api().containers(
                all=True, filters={"label": f"{LABEL_INSTANCE}={instance_id}"}
            )
        return [info for item in containers if (info := container_info(item)) is not None]

    def keep_warm(self, may_create: Callable[[], bool]) -> None:
        """See ``Runner.keep_warm``."""
        self.pool.keep(may_create)

    def drop_warm(self) -> None:
        """See ``Runner.drop_warm``."""
        self.pool.drop()

    def unused_warm(self, instance_id: str) -> frozenset[str]:
        """See ``Runner.unused_warm``."""
        labels = [f"{name}={value}" for name, value in warm_labels(instance_id).items()]
        with translated("list the containers"):
            containers = self._client.api().containers(all=True, filters={"label": labels})
        return frozenset(str(item["Id"]) for item in containers if not self.pool.owns(str(item["Id"])))

    def count_warm(self) -> int:
        """Return how many containers wait for jobs on this engine, of all services."""
        with translated("list the containers"):
            return len(self._client.api().containers(filters={"name": WARM_PREFIX, "label": LABEL_WARM}))

    def warm_view(self) -> WarmView:
        """See ``Runner.warm_view``."""
        return self.pool.view()

    def keeps_connections(self) -> bool:
        """See ``warm.Engine.keeps_connections``."""
        # Podman does not close a container's input with the connection.
        return self._client.is_local_docker()

    def image_id(self, image: str) -> str | None:
        """See ``warm.Engine.image_id``."""
        with translated("inspect an image"), ignoring(404):
            return images.current_id(self._client.api(), image)
        return None

    def is_directory(self, container_id: str, path: str) -> bool:
        """See ``warm.Engine.is_directory``."""
        return archives.is_directory(self._client.api(), container_id, path)

    def image_of(self, container_id: str) -> str:
        """See ``warm.Engine.image_of``."""
        with gone_if_missing(container_id), translated("inspect a container"):
            return str(self._client.api().inspect_container(container_id)["Image"])

    def rename(self, container_id: str, name: str) -> None:
        """See ``warm.Engine.rename``."""
        with gone_if_missing(container_id), translated("rename a container"):
            self._client.api().rename(container_id, name)

    def remove_stray_volumes(
        self, instance_id: str, needed: Callable[[], Collection[tuple[str, int]]]
    ) -> None:
        """See ``Runner.remove_stray_volumes``."""
        api = self._client.api()
        filters = {"label": f"{LABEL_INSTANCE}={instance_id}", "dangling": True}
        with translated("remove volumes"):
            volumes = api.volumes(filters=filters)["Volumes"] or []
        attempts = needed()
        for volume in volumes:
            if attempt_of(volume["Labels"]) not in attempts:
                with translated("remove volumes"), ignoring(404, 409):
                    api.remove_volume(volume["Name"])

    def close(self) -> None:
        """See ``Runner.close``."""
        self._client.close()
