"""Containers on a Docker Engine, through its API: the only importer of the Docker SDK.

Nothing is bind-mounted: sources go in and artifacts come out as tar streams, so that the engine may
as well be on another machine.
"""

import contextlib
import json
import logging
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import Any

import docker
import docker.constants
import docker.errors
import docker.utils
import requests
from docker.types import LogConfig, Mount

from reactorcide.domain.errors import EngineUnavailable, InfrastructureError, JobFailed, ReactorcideError
from reactorcide.domain.jobs import ARTIFACTS_DIR
from reactorcide.domain.sizes import format_size
from reactorcide.runner import (
    AttachedOutput,
    ContainerGone,
    ContainerRestarted,
    ContainerSpec,
    Exit,
    Found,
    ImageMissing,
    Output,
    Signal,
    Started,
    handover,
    users,
)
from reactorcide.runner.disk import hidden_bytes, taken_bytes
from reactorcide.runner.output import RECEIVE_BYTES, CommandOutput, DockerAttachedOutput, DockerRereadOutput
from reactorcide.tarstream import DamagedTar, read_tar

log = logging.getLogger("reactorcide.runner")

_API_TIMEOUT_S = 60
_KNOCK_TIMEOUT_S = 5
_PULL_CHECK_S = 0.2
_MAX_USERS_FILE_BYTES = 1 << 20
_GO_MODE_TYPE = 0x8F280000
"""The bits of a mode of the engine's for all that is no regular file (os.ModeType of Go)."""
_DU_TIMEOUT_S = 60
_OOM_PATIENCE_S = 3.0
_OOM_LOOK_S = 0.05

_LABEL = "reactorcide."
_LABEL_INSTANCE = _LABEL + "instance"
_LABEL_JOB = _LABEL + "job"
_LABEL_ATTEMPT = _LABEL + "attempt"

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

# One network for all jobs of all services on an engine, never removed: one for each job would cost it a
# quarter of a second. Two bridges of one name cannot be, so that naming it keeps services that make it
# in the same moment from making two.
_ISOLATED = "reactorcide-isolated"
_NO_CROSS_TALK = {
    "com.docker.network.bridge.enable_icc": "false",
    "com.docker.network.bridge.name": "reactorcide0",
}

_JOBS_FAULT = re.compile(
    r"unable to find (user|group)|no matching entries in (passwd|group)|not a directory|file name too long|"
    r"too many (levels of )?(symbolic )?links|exec format error",
    re.IGNORECASE,
)
_HOST_PATH = re.compile(
    r"/\S*?/(?:overlay2|overlayfs|fuse-overlayfs|vfs|btrfs|zfs|volumes)/\S*?/(?:merged|_data|diff|rootfs)(?=[/:\s]|$)"
)
_HOSTS_FAULT = re.compile(
    r"no space left|cannot allocate memory|too many open files|resource temporarily unavailable|"
    r"is already in use|input/output error",
    re.IGNORECASE,
)


class DockerRunner:
    """A ``Runner`` on the engine that the environment names (``DOCKER_HOST``), or the local one.

    Containers are on ``network`` (``bridge``, ``isolated`` or ``none``), and have ``capabilities`` beside the
    few that most jobs need. Constructing connects to nothing; an engine that is away now may come later.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        max_connections: int = 32,
        network: str = "bridge",
        capabilities: Sequence[str] = (),
        allow_new_privileges: bool = False,
    ) -> None:
        self._environment = dict(environment)
        # None is the engine's default, which may have no bridge at all.
        self._network = {"bridge": None, "isolated": _ISOLATED, "none": "none"}[network]
        self._network_is_there = self._network != _ISOLATED
        self._capabilities = sorted({*_CAPABILITIES, *capabilities})
        self._security_options = [] if allow_new_privileges else ["no-new-privileges"]
        self._max_connections = max_connections
        self._lock = threading.Lock()
        self._client: docker.APIClient | None = None
        self._artifacts_made_at: dict[str, str] = {}

    def check(self) -> None:
        """See ``Runner.check``."""
        self._knock()
        with _translated("answer a ping"):
            self._api().ping()

    def version(self) -> str:
        """Return the engine's version; raises ``EngineUnavailable``."""
        self._knock()
        with _translated("tell its version"):
            return str(self._api().version()["Version"])

    def pull(self, image: str, progress: Callable[[str], None], check: Callable[[], None]) -> str:
        """See ``Runner.pull``."""
        progress(f"pulling image {image}")
        seen: dict[str, str] = {}
        for event in self._pull_events(image, check):
            if "error" in event:
                raise _pull_failure(image, str(event["error"]))
            layer, status = str(event.get("id", "")), str(event.get("status", ""))
            # A line for each step of a layer, not for each of its hundreds of progress bars.
            if status and seen.get(layer) != status:
                seen[layer] = status
                progress(f"{layer}: {status}" if layer else status)
        api: Any = self._api()  # has no type for this
        try:
            with _translated("inspect an image"):
                return str(api.inspect_image(image)["Id"])
        except docker.errors.NotFound as exc:
            raise InfrastructureError(f"image {image} was pulled, and somebody removed it") from exc

    def _pull_events(self, image: str, check: Callable[[], None]) -> Iterator[dict[str, Any]]:
        """Yield what the engine tells of a pull, calling ``check`` also while it tells nothing.

        The reading is done by a thread: an engine that waits for a registry that hangs doesn't even begin its
        answer, and there is no way to call that off. A thread that is given up ends with the pull.
        """
        repository, tag = docker.utils.parse_repository_tag(image)
        api = self._api()
        events: SimpleQueue[dict[str, Any] | Exception | None] = SimpleQueue()

        def read() -> None:
            try:
                with _translated(f"pull {image}"):
                    try:
                        # Anew, so that a `docker login` counts without a restart.
                        api.reload_config()
                        for event in api.pull(repository, tag=tag or "latest", stream=True, decode=True):
                            events.put(event)
                    except docker.errors.APIError as exc:
                        raise _pull_failure(image, str(exc.explanation)) from exc
                    except docker.errors.DockerException as exc:
                        raise InfrastructureError(
                            f"the credentials to pull {image} could not be read: {_one_line(str(exc))}"
                        ) from exc
                events.put(None)
            except Exception as exc:
                events.put(exc)

        threading.Thread(target=read, name=f"pull-{image}", daemon=True).start()
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

    def create(self, spec: ContainerSpec) -> str:
        """See ``Runner.create``."""
        api = self._api()
        if not self._network_is_there:
            self._make_network()
        labels = {
            _LABEL_INSTANCE: spec.instance_id,
            _LABEL_JOB: spec.job_id,
            _LABEL_ATTEMPT: str(spec.attempt),
        }
        host_config = api.create_host_config(
            init=True,
            network_mode=self._network,
            security_opt=self._security_options,
            cap_drop=["ALL"],
            cap_add=self._capabilities,
            pids_limit=spec.pids_limit,
            nano_cpus=None if spec.cpu_limit is None else round(spec.cpu_limit * 1e9),
            mem_limit=spec.memory_limit_bytes,
            # The same number again means no swap, so that the limit is the limit.
            memswap_limit=spec.memory_limit_bytes,
            # The engine's own copy is what a log is recovered from: with rotation it would lose data. A
            # size has to be named, or the engine's own default would be taken, which may rotate.
            log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": "8192t"}),
            # Anonymous, so that it goes with the container; empty, whatever the image has there.
            mounts=[Mount(ARTIFACTS_DIR, None, type="volume", no_copy=True, labels=labels)],
        )
        try:
            with _translated("create a container"):
                created = api.create_container(
                    spec.image,
                    name=container_name(spec.job_id, spec.attempt),
                    entrypoint=["/bin/sh"],
                    command=handover.launcher(spec.mark),
                    stdin_open=True,
                    environment=handover.INIT_ENV | handover.configured(spec.env),
                    working_dir=spec.working_dir,
                    healthcheck={"test": ["NONE"]},
                    labels=labels,
                    host_config=host_config,
                )
        except docker.errors.NotFound as exc:
            if "image" not in str(exc.explanation).lower():
                raise EngineUnavailable(f"the Docker Engine could not create a container: {exc}") from exc
            raise ImageMissing(spec.image) from exc
        return str(created["Id"])

    def owner(self, container_id: str) -> tuple[int, int]:
        """See ``Runner.owner``."""
        with _gone(container_id), _translated("inspect a container"):
            user = str(self._api().inspect_container(container_id)["Config"].get("User") or "")
        return users.identity(user, lambda path: self._records(container_id, path))

    def put(self, container_id: str, tar: Iterator[bytes]) -> None:
        """See ``Runner.put``."""
        with _gone(container_id), _translated("copy the source into the container"):
            self._api().put_archive(container_id, "/", tar)

    def attach(self, container_id: str) -> AttachedOutput:
        """See ``Runner.attach``."""
        # Podman looks for keys that end the connection also where there is no terminal.
        params = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1, "detachKeys": ""}
        with _gone(container_id), _translated("attach to a container"):
            stream: Any = self._api().attach_socket(container_id, params=params)
        # What it is handed out of: that is what can be closed, and is the same with TLS and without.
        return DockerAttachedOutput(stream._response)

    def reread(self, container_id: str, *, was_handed_over: bool = True) -> Output:
        """See ``Runner.reread``."""
        api: Any = self._api()  # its typed calls answer with decoded text
        with _gone(container_id), _translated("read a container's log"):
            response = api._get(
                api._url("/containers/{0}/logs", container_id),
                params={"stdout": 1, "stderr": 1, "follow": 1, "timestamps": 0},
                stream=True,
                timeout=None,
            )
            api._raise_for_status(response)
        return DockerRereadOutput(response, was_handed_over=was_handed_over)

    def is_acknowledged(self, container_id: str) -> bool:
        """See ``Runner.is_acknowledged``."""
        api: Any = self._api()  # its typed calls answer with decoded text
        output = CommandOutput(was_handed_over=True)
        with _gone(container_id), _translated("read a container's log"):
            response = api._get(
                api._url("/containers/{0}/logs", container_id),
                params={"stdout": 1, "stderr": 0, "follow": 0},
                stream=True,
                timeout=_API_TIMEOUT_S,
            )
            with response:
                api._raise_for_status(response)
                for data in response.iter_content(RECEIVE_BYTES):
                    output.take(data)
                    if output.acknowledged:
                        return True
        return False

    def start(self, container_id: str) -> Started:
        """See ``Runner.start``."""
        with _gone(container_id), _translated("start the container"):
            # Now: the engine's own time of the start is later than the command's first deeds.
            self._artifacts_made_at[container_id] = self._artifacts_changed_at(container_id)
            try:
                self._api().start(container_id)
            except docker.errors.NotFound as exc:
                if _ISOLATED not in str(exc.explanation):
                    raise
                # Somebody has removed it. A start that failed has closed the output, so begin anew.
                self._network_is_there = False
                raise EngineUnavailable(f"the network {_ISOLATED} is gone; it is made anew") from exc
            details = self._api().inspect_container(container_id)
        variables = dict(entry.partition("=")[::2] for entry in details["Config"]["Env"] or ())
        return Started(str(details["State"]["StartedAt"]), variables.get("SHLVL"))

    def signal(self, container_id: str, signal: Signal) -> None:
        """See ``Runner.signal``."""
        # Over already (409), or gone (404): there is nothing left to be told.
        with _translated("stop the container"), _ignoring(404, 409):
            try:
                self._api().kill(container_id, f"SIG{signal}")
            except docker.errors.APIError as exc:
                # As Podman says that it is over.
                if "can only kill running" not in str(exc.explanation):
                    raise

    def wait(self, container_id: str, timeout_s: float, started_at: str | None) -> Exit | None:
        """See ``Runner.wait``."""
        api: Any = self._api()  # takes fractions of a second, though its types say otherwise
        with _gone(container_id), _translated("wait for the container"):
            with contextlib.suppress(requests.ReadTimeout, requests.ConnectionError):
                # The SDK reports a wait that takes too long as either of the two; an engine that is
                # away is told by the next call.
                if api.wait(container_id, timeout=timeout_s)["StatusCode"] == 0:
                    # Nothing more that could be asked about it matters: without a command no life ends with
                    # 0.
                    return Exit(exit_code=0, oom_killed=False)
            details = api.inspect_container(container_id)
            deadline = monotonic() + _OOM_PATIENCE_S
            while _may_be_out_of_memory(details) and monotonic() < deadline:
                sleep(_OOM_LOOK_S)
                details = api.inspect_container(container_id)
        state = details["State"]
        if started_at not in (None, state["StartedAt"]):
            raise ContainerRestarted(container_id)
        if state["Status"] in ("exited", "dead"):
            return Exit(exit_code=int(state["ExitCode"]), oom_killed=bool(state["OOMKilled"]))
        return None

    def disk_bytes(self, container_id: str) -> int | None:
        """See ``Runner.disk_bytes``; a volume counts where its files are on this host and may be read."""
        api: Any = self._api()  # has no typed call that asks for the size
        with _gone(container_id), _translated("measure a container"):
            url = api._url("/containers/{0}/json", container_id)
            details = api._result(api._get(url, params={"size": 1}), json=True)
        if not details["State"]["Running"]:
            return None
        volumes = [str(mount["Source"]) for mount in details["Mounts"] if mount["Type"] == "volume"]
        return int(details.get("SizeRw") or 0) + sum(map(_tree_bytes, volumes)) + hidden_bytes(details)

    def copy_bytes(self, container_id: str) -> int | None:
        """See ``Runner.copy_bytes``."""
        with _gone(container_id), _translated("inspect a container"):
            path = str(self._api().inspect_container(container_id).get("LogPath") or "")
        return taken_bytes(path) or None

    def artifacts(self, container_id: str) -> Generator[bytes, None, None] | None:
        """See ``Runner.artifacts``."""
        with _gone(container_id), _translated("read the artifacts"):
            try:
                # Asking costs a twelfth of fetching a tar. An adopter has nothing to compare with, and
                # fetches.
                changed_at = self._artifacts_changed_at(container_id)
            except docker.errors.NotFound:
                self._must_be_there(container_id)
                changed_at = None
        if changed_at is not None and changed_at == self._artifacts_made_at.get(container_id):
            return None
        response = self._archive(container_id, ARTIFACTS_DIR)
        if response is None:
            raise JobFailed(f"{ARTIFACTS_DIR} is not there any more: the command has moved or removed it")
        return _translated_chunks(response)

    def remove(self, container_id: str) -> None:
        """See ``Runner.remove``."""
        self._artifacts_made_at.pop(container_id, None)
        # 409: somebody else (an earlier call that timed out) is removing it just now.
        with _translated("remove the container"), _ignoring(404, 409):
            self._api().remove_container(container_id, v=True, force=True)

    def list(self, instance_id: str) -> list[Found]:
        """See ``Runner.list``."""
        with _translated("list the containers"):
            containers = self._api().containers(
                all=True, filters={"label": f"{_LABEL_INSTANCE}={instance_id}"}
            )
        return [found for item in containers if (found := _found(item)) is not None]

    def remove_stray_volumes(self, instance_id: str) -> None:
        """See ``Runner.remove_stray_volumes``."""
        wanted = {"label": f"{_LABEL_INSTANCE}={instance_id}", "dangling": True}
        with _translated("remove volumes"):
            for volume in self._api().volumes(filters=wanted)["Volumes"] or []:
                with _ignoring(404, 409):
                    self._api().remove_volume(volume["Name"])

    def remove_image(self, image: str, image_id: str) -> bool:
        """See ``Runner.remove_image``."""
        api: Any = self._api()  # has no type for an image's details
        with _translated("remove an image"), _ignoring(404):
            if api.inspect_image(image)["Id"] == image_id:
                with _ignoring(409):
                    api.remove_image(image)
                    return True
                return False
        return True

    def close(self) -> None:
        """See ``Runner.close``."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _api(self) -> docker.APIClient:
        """Return the client; the first time it asks the engine which version of the API to speak."""
        client = self._client
        if client is not None:
            return client
        with self._lock:
            if self._client is None:
                self._knock()
                with _translated("tell its version"):
                    arguments = docker.utils.kwargs_from_env(environment=self._environment)
                    made: Any = docker.APIClient(
                        **arguments,
                        # Not "auto": that would ask before the environment is left out.
                        version=docker.constants.DEFAULT_DOCKER_API_VERSION,
                        timeout=_API_TIMEOUT_S,
                        max_pool_size=self._max_connections,
                    )
                    # A CA bundle of the environment would win over DOCKER_CERT_PATH, no proxy passes an
                    # attach on, and to look for them costs each call.
                    made.trust_env = False
                    try:
                        made._version = made._retrieve_server_version()
                    except BaseException:
                        made.close()
                        raise
                    self._client = made
            return self._client

    def _knock(self) -> None:
        """Raise ``EngineUnavailable`` where nobody listens on the engine's socket, or it is no such.

        The SDK would notice too, but it leaves its socket to the garbage collector and buries the
        reason.
        """
        with _translated("tell where it is"):
            address = str(docker.utils.parse_host(self._environment.get("DOCKER_HOST")))
        if address.startswith("ssh://"):
            raise EngineUnavailable(
                "an engine cannot be reached by ssh:// in DOCKER_HOST; forward its socket with "
                "'ssh -nNT -L /tmp/engine.sock:/var/run/docker.sock HOST' and name unix:///tmp/engine.sock"
            )
        if not address.startswith("http+unix://"):
            return
        path = address.removeprefix("http+unix://")
        try:
            with socket.socket(socket.AF_UNIX) as knock:
                knock.settimeout(_KNOCK_TIMEOUT_S)
                knock.connect(path)
        except OSError as exc:
            raise EngineUnavailable(
                f"no Docker Engine answers at {path} ({exc.strerror or exc}); "
                "start it, or see `reactorcide doctor`"
            ) from exc

    def _make_network(self) -> None:
        """Make the network on which containers cannot reach each other, unless it is there."""
        api = self._api()
        with _translated(f"make the network {_ISOLATED}"):
            # 409: it is there; 403: its bridge is, for somebody else makes it in this moment.
            with _ignoring(403, 409):
                api.create_network(
                    _ISOLATED,
                    driver="bridge",
                    check_duplicate=True,
                    options=_NO_CROSS_TALK,
                    labels={f"{_LABEL}network": "isolated"},
                )
            try:
                found = api.inspect_network(_ISOLATED)["Options"]
            except docker.errors.NotFound as exc:
                raise EngineUnavailable(f"the network {_ISOLATED} could not be made") from exc
        if not _NO_CROSS_TALK.items() <= (found or {}).items():
            raise InfrastructureError(
                f"the network {_ISOLATED} lets containers reach each other; remove it, and it is made anew"
            )
        self._network_is_there = True

    def _artifacts_changed_at(self, container_id: str) -> str:
        """Return when the artifacts directory was changed last, by the engine's clock."""
        api: Any = self._api()  # has no typed call for this
        response = api.head(
            api._url("/containers/{0}/archive", container_id),
            params={"path": ARTIFACTS_DIR},
            timeout=_API_TIMEOUT_S,
        )
        api._raise_for_status(response)
        return str(_stat(response)["mtime"])

    def _must_be_there(self, container_id: str) -> None:
        """Raise ``ContainerGone`` unless the container is there, where a path of it was not found."""
        with _gone(container_id):
            state = self._api().inspect_container(container_id)["State"]
        # One that is being removed has lost its files already.
        if state["Dead"] or state["Status"] in ("removing", "dead"):
            raise ContainerGone(container_id)

    def _archive(self, container_id: str, path: str) -> requests.Response | None:
        """Open a path of a container as a tar stream; ``None`` where the container has no such path."""
        api: Any = self._api()  # its typed call keeps the answer, which is to be closed, to itself
        with _gone(container_id), _translated(f"read {path}"):
            response = api._get(
                api._url("/containers/{0}/archive", container_id), params={"path": path}, stream=True
            )
            if response.status_code == 404:
                response.close()
                self._must_be_there(container_id)
                return None
            api._raise_for_status(response)
            opened: requests.Response = response
        return opened

    def _records(self, container_id: str, path: str) -> Sequence[Sequence[str]]:
        """Return the lines of a file of a container, cut at colons; none where there is no such file.

        Raises ``JobFailed`` for a file that is larger than any list of users.
        """
        response = self._archive(container_id, path)
        if response is not None and (target := _stat(response)["linkTarget"]):
            response.close()
            # The engine has followed all links, inside of the container, but gives the first one.
            response = self._archive(container_id, str(target))
        if response is None:
            return []
        with response:
            if _stat(response)["mode"] & _GO_MODE_TYPE:
                # The engine itself would wait for a FIFO's other end, and with it this container's start.
                raise JobFailed(f"{path} of the image is no regular file: its user cannot be looked up")
            if _stat(response)["size"] > _MAX_USERS_FILE_BYTES:
                limit = format_size(_MAX_USERS_FILE_BYTES)
                raise JobFailed(
                    f"{path} of the image is larger than {limit}, so its user cannot be looked up"
                )
            text = "".join(
                b"".join(entry.chunks).decode(errors="replace")
                for entry in read_tar(_translated_chunks(response))
                if entry.kind == "file"
            )
        return [line.split(":") for line in text.splitlines()]


def container_name(job_id: str, attempt: int) -> str:
    """Return the name of an attempt's container; two of one attempt can't exist."""
    return f"reactorcide-{job_id}-{attempt}"


def _found(item: Mapping[str, Any]) -> Found | None:
    """Return a container of the engine's list; ``None`` for one with labels that no attempt has."""
    job_id, attempt = item["Labels"].get(_LABEL_JOB), item["Labels"].get(_LABEL_ATTEMPT, "")
    if job_id is None or not attempt.isascii() or not attempt.isdigit():
        return None
    name = container_name(job_id, int(attempt))
    # The engine writes names with a slash before them.
    is_named = name in [known.removeprefix("/") for known in item["Names"] or ()]
    return Found(str(item["Id"]), job_id, int(attempt), is_named)


def _may_be_out_of_memory(details: Mapping[str, Any]) -> bool:
    """Tell whether a container was killed and the engine may still have to learn that memory was why.

    It is told of the kernel's kill apart from the container's end, and sometimes after it.
    """
    state = details["State"]
    was_killed = state["Status"] == "exited" and state["ExitCode"] == 137 and not state["OOMKilled"]
    return was_killed and details["HostConfig"]["Memory"] > 0


def _tree_bytes(path: str) -> int:
    """Return what a directory and all below it take; 0 where it is not on this host, or not ours to read."""
    if not os.access(path, os.R_OK | os.X_OK):
        return 0
    # A job may build trees that are too deep for a walk of our own, and rename them while that is in them.
    try:
        done = subprocess.run(  # noqa: S603  # the path is the engine's
            ["du", "-skx", path],  # noqa: S607  # not everywhere in the same place
            env={"PATH": os.defpath},
            capture_output=True,
            timeout=_DU_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        # What the engine itself has told still counts.
        log.warning("a volume could not be measured: %s", exc)
        return 0
    # What vanishes meanwhile is complained of, and the sum is told all the same.
    kib = done.stdout.split(b"\t")[0]
    return int(kib) << 10 if kib.isdigit() else 0


class _translated:
    """Turns the SDK's errors into ours; ``doing`` says what was tried. "Not found" is the caller's."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        return None

    def __exit__(self, exc_type: object, exc: BaseException | None, traceback: object) -> None:
        if isinstance(exc, docker.errors.NotFound) or _is_being_removed(exc):
            return
        if isinstance(exc, docker.errors.APIError):
            explanation = _one_line(str(exc.explanation or exc))
            # The class of the status code does not say whose fault it is: a user that the image does not know
            # is a 500, a full disk may be a 400.
            is_jobs = _JOBS_FAULT.search(explanation) is not None
            if not is_jobs and (exc.is_server_error() or _HOSTS_FAULT.search(explanation) is not None):
                raise EngineUnavailable(f"the Docker Engine could not {self._doing}: {explanation}") from exc
            raise JobFailed(f"the Docker Engine refused to {self._doing}: {explanation}") from exc
        if isinstance(exc, DamagedTar):
            raise EngineUnavailable(f"the Docker Engine's answer is damaged ({self._doing}): {exc}") from exc
        if isinstance(exc, docker.errors.DockerException | requests.RequestException | OSError):
            raise EngineUnavailable(
                f"the Docker Engine does not answer ({self._doing}): {_one_line(str(exc))}; is it running?"
            ) from exc


def _is_being_removed(error: object) -> bool:
    return isinstance(error, docker.errors.APIError) and "marked for removal" in str(error.explanation)


class _gone:
    """Turns the engine's "not found" and "marked for removal" into ``ContainerGone``."""

    def __init__(self, container_id: str) -> None:
        self._container_id = container_id

    def __enter__(self) -> None:
        return None

    def __exit__(self, exc_type: object, exc: BaseException | None, traceback: object) -> None:
        if isinstance(exc, docker.errors.NotFound) or _is_being_removed(exc):
            raise ContainerGone(self._container_id) from exc


class _ignoring:
    """Swallows the engine's answers that mean: what was asked for is so already."""

    def __init__(self, *status_codes: int) -> None:
        self._status_codes = status_codes

    def __enter__(self) -> None:
        return None

    def __exit__(self, exc_type: object, exc: BaseException | None, traceback: object) -> bool:
        return isinstance(exc, docker.errors.APIError) and exc.status_code in self._status_codes


def _stat(response: requests.Response) -> dict[str, Any]:
    """Return what the engine says about the path that it answers with."""
    stat: dict[str, Any] = docker.utils.decode_json_header(response.headers["x-docker-container-path-stat"])
    return stat


def _translated_chunks(response: requests.Response) -> Generator[bytes, None, None]:
    with response, _translated("read the artifacts"):
        yield from response.iter_content(RECEIVE_BYTES)


def _pull_failure(image: str, reason: str) -> ReactorcideError:
    """Return what a failed pull means: there is no such image, or (worth another try) no way to it."""
    reason = _one_line(reason)
    # First, for some engines say of a missing login that the image may as well not exist.
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


def _one_line(text: str) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        text = json.loads(text)["message"]
    # Where the engine keeps its containers and volumes on its host is no matter of a job.
    return _HOST_PATH.sub("", " ".join(text.split()))[:500]
