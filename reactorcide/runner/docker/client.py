"""The connection to a Docker Engine."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import docker
import docker.constants
import docker.errors
import docker.utils
import requests

from reactorcide.domain.errors import EngineUnavailable
from reactorcide.runner.docker.errors import translated

API_TIMEOUT_S = 60
_PROBE_TIMEOUT_S = 5
_LOCAL = "http+unix://"


@contextmanager
def closed_on_error(response: requests.Response) -> Iterator[None]:
    """Close an answer of the engine, and its connection, if the body raises an error."""
    try:
        yield
    except BaseException:
        response.close()
        raise


class EngineClient:
    """Connects, at the first call, to the engine that the environment names, or to the local one.

    Thread-safe.
    """

    def __init__(self, environment: Mapping[str, str], *, max_connections: int) -> None:
        self._environment = dict(environment)
        self._max_connections = max_connections
        self._lock = threading.Lock()
        self._api: docker.APIClient | None = None
        self._is_podman: bool | None = None

    def check(self) -> None:
        """Raise ``EngineUnavailable`` unless the engine answers."""
        self._probe()
        with translated("answer a ping"):
            self.api().ping()

    def version(self) -> str:
        """Return the engine's version; raises ``EngineUnavailable``."""
        self._probe()
        with translated("tell its version"):
            return str(self.api().version()["Version"])

    def is_podman(self) -> bool:
        """Return whether the engine is Podman, which has the same API."""
        if self._is_podman is None:
            components = self.api().version().get("Components") or ()
            self._is_podman = any(component["Name"] == "Podman Engine" for component in components)
        return self._is_podman

    def is_local(self) -> bool:
        """Return whether the engine is reached over a socket of this host."""
        return self._address().startswith(_LOCAL)

    def is_local_docker(self) -> bool:
        """Return whether the engine is Docker itself, and reached over a socket of this host."""
        return self.is_local() and not self.is_podman()

    def api(self) -> docker.APIClient:
        """Return the SDK's client; the first call asks the engine which version of its API to speak."""
        api = self._api
        if api is not None:
            return api
        with self._lock:
            if self._api is None:
                self._probe()
                with translated("tell its version"):
                    self._api = self._connect()
            return self._api

    def close(self) -> None:
        """Close the connections; safe to repeat."""
        with self._lock:
            api, self._api = self._api, None
        if api is not None:
            api.close()

    def _connect(self) -> docker.APIClient:
        api: Any = docker.APIClient(  # the attributes set below have no types
            **docker.utils.kwargs_from_env(environment=self._environment),
            # Not "auto": that would ask before the environment is left out.
            version=docker.constants.DEFAULT_DOCKER_API_VERSION,
            timeout=API_TIMEOUT_S,
            max_pool_size=self._max_connections,
        )
        # A CA bundle of the environment would override DOCKER_CERT_PATH, no proxy supports attach, and
        # looking for both costs each call.
        api.trust_env = False
        try:
            api._version = api._retrieve_server_version()
        except BaseException:
            api.close()
            raise
        client: docker.APIClient = api
        return client

    def _address(self) -> str:
        """Return the engine's address; raises ``EngineUnavailable`` if what the environment names is none."""
        named = self._environment.get("DOCKER_HOST")
        try:
            return str(docker.utils.parse_host(named))
        except (docker.errors.DockerException, ValueError) as exc:
            raise EngineUnavailable(
                f"DOCKER_HOST is not the address of an engine, like unix:///var/run/docker.sock: {exc}"
            ) from exc

    def _probe(self) -> None:
        """Raise ``EngineUnavailable`` if nothing listens on the engine's socket, or the address is bad.

        The SDK would fail, too, but it leaves its socket to the garbage collector and hides the reason.
        """
        address = self._address()
        if address.startswith("ssh://"):
            raise EngineUnavailable(
                "an engine cannot be reached by ssh:// in DOCKER_HOST; forward its socket with "
                "'ssh -nNT -L /tmp/engine.sock:/var/run/docker.sock HOST' and name unix:///tmp/engine.sock"
            )
        if not address.startswith(_LOCAL):
            return
        path = address.removeprefix(_LOCAL)
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(_PROBE_TIMEOUT_S)
                probe.connect(path)
        except OSError as exc:
            raise EngineUnavailable(
                f"no Docker Engine answers at {path} ({exc.strerror or exc}); "
                "start it, or see `reactorcide doctor`"
            ) from exc
