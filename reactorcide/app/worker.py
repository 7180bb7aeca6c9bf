"""``WorkerService``: a worker on another machine than its service, with an ordinary start and stop."""

import hashlib
import logging
import shutil
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from reactorcide import __version__
from reactorcide.app import parts
from reactorcide.domain.errors import (
    ConfigurationError,
    Conflict,
    InfrastructureError,
    ReactorcideError,
    Unauthorized,
)
from reactorcide.domain.workers import PROTOCOL, SERVICE_LIMITS, agreed_protocol
from reactorcide.lib.clock import boot_id, boottime
from reactorcide.lib.ids import new_id
from reactorcide.lib.records import record
from reactorcide.objects.filesystem import check_room
from reactorcide.settings import Settings
from reactorcide.worker.attempt import Limits
from reactorcide.worker.loop import Worker
from reactorcide.worker.remote.connection import Connection, Session
from reactorcide.worker.remote.identity import Identity, WorkerFiles, new_secret
from reactorcide.worker.remote.port import RemotePort
from reactorcide.worker.remote.transport import ServiceAway, Transport

log = logging.getLogger("reactorcide.worker")

_RETRY_S = 2.0


@record(kw_only=True)
class ServiceAddress:
    """Where a worker's service is, and how the worker proves who it is."""

    url: str
    token: str | None
    """The registration token; needed at the first start only."""
    ca_file: Path | None
    lost_after_s: float


class WorkerService:
    """A worker that reaches its service over HTTP. ``start`` once, ``stop`` any number of times."""

    def __init__(
        self,
        settings: Settings,
        address: ServiceAddress,
        environment: Mapping[str, str],
        given_up: Callable[[str], None],
    ) -> None:
        """Wire the parts together; nothing is connected yet. Raises ``ConfigurationError``.

        ``given_up`` is called when another process works with this worker's secret.
        """
        self._settings = replace(settings, data_dir=settings.data_dir.absolute())
        self._address = address
        self._environment = environment
        self._given_up = given_up
        self._files = WorkerFiles(self._settings.data_dir)
        self._identity = self._known_identity()
        ca_file = None if address.ca_file is None else str(address.ca_file)
        self._transport = Transport(address.url, self._secret, ca_file)
        self._runner = parts.deferred_runner(self._settings, environment)
        self._session_id = new_id()
        self._stopping = threading.Event()
        self._worker: Worker | None = None

    def start(self) -> bool:
        """Register if necessary, begin a session, and start working; returns ``False`` if stopped before.

        Waits for a service that is away. Raises ``ConfigurationError`` if the service refuses this worker.
        """
        session = self._patiently(self._connect)
        if session is None:
            return False
        self._transport.instance_id = session.instance_id
        if self._settings.workspaces_dir.exists():
            shutil.rmtree(self._settings.workspaces_dir, ignore_errors=True)
        port = RemotePort(
            Connection(
                self._transport,
                self._files,
                session,
                self._given_up,
                lambda: self._runner.warm_view().waiting,
            )
        )
        self._worker = Worker(
            port,
            self._runner,
            parts.preparation(self._settings, self._environment, port.is_admin),
            self._limits(session),
            concurrency=self._settings.concurrency,
            queues=self._settings.queues,
            check_disk=self._check_disk,
        )
        self._worker.start()
        log.info("worker %s is connected to %s", session.worker_id, self._address.url)
        return True

    def _check_disk(self) -> None:
        self._files.check()
        check_room(self._settings.data_dir, self._settings.min_free_disk_bytes)

    def drain(self, drained: Callable[[], None]) -> None:
        """Take no more jobs, and call ``drained`` when the last running job has ended."""
        if self._worker is None:
            drained()
        else:
            self._worker.drain(drained)

    def stop(self, deadline_s: float = 3.0) -> None:
        """Stop within about ``deadline_s``; running containers continue, and the next start adopts them."""
        deadline = monotonic() + deadline_s
        self._stopping.set()
        if self._worker is not None:
            self._worker.stop(max(0.1, deadline - monotonic()))
        self._transport.close()
        try:
            self._runner.close()
        except ReactorcideError as exc:
            log.warning("while stopping: %s", exc)

    # --- who this worker is --------------------------------------------------------------------

    def _known_identity(self) -> Identity:
        """Return who this worker is: a new token is a new registration."""
        known, token = self._files.identity(), self._address.token
        registration = None if token is None else hashlib.sha256(token.encode()).hexdigest()
        if known is not None and registration in (None, known.registration_sha256):
            return known
        if registration is None:
            raise ConfigurationError(
                "this worker is not registered: on the service run 'reactorcide workers add NAME', and give "
                "what it prints with --token"
            )
        return Identity(self._address.url, registration, new_secret())

    def _secret(self) -> str | None:
        return self._identity.secret if self._identity.is_registered else None

    def _connect(self) -> Session:
        if not self._identity.is_registered:
            # Before it is sent: if the answer is lost, the next start repeats it.
            self._files.save_identity(self._identity)
            body = {"token": self._address.token, "secret": self._identity.secret}
            self._transport.call("POST", "register", body)
            self._identity = replace(self._identity, is_registered=True)
            self._files.save_identity(self._identity)
        answer = self._transport.call(
            "POST",
            "sessions",
            {
                "session_id": self._session_id,
                "host": socket.gethostname()[:255] or "unknown",
                "version": __version__,
                "protocol": PROTOCOL,
                "concurrency": self._settings.concurrency,
                "queues": list(self._settings.queues),
                "lost_after": self._address.lost_after_s,
            },
        )
        return self._session(answer)

    def _session(self, answer: Mapping[str, Any]) -> Session:
        try:
            agreed_protocol(int(answer["protocol"]))
            return Session(
                session_id=answer["session_id"],
                worker_id=answer["worker_id"],
                instance_id=answer["instance_id"],
                # Renewed three times in it, and often enough for a short --lost-after.
                lease_s=min(float(answer["lease"]), self._address.lost_after_s),
                limits={name: answer[name] for name in SERVICE_LIMITS},
            )
        except Conflict as exc:
            raise ServiceAway(str(exc)) from exc
        except (LookupError, TypeError, ValueError) as exc:
            raise ServiceAway(
                f"the service's answer cannot be understood ({type(exc).__name__}: {exc}); it may be of "
                "another version"
            ) from exc

    def _patiently(self, call: Callable[[], Session]) -> Session | None:
        problem = ""
        while not self._stopping.is_set():
            try:
                return call()
            except ServiceAway as exc:
                if str(exc) != problem:
                    problem = str(exc)
                    log.warning("waiting: %s", exc)
                self._end_overdue()
            except Unauthorized as exc:
                raise ConfigurationError(
                    f"the service refuses this worker: {exc}; add it again with 'reactorcide workers add', "
                    "and give the new token with --token"
                ) from exc
            self._stopping.wait(_RETRY_S)
        return None

    def _end_overdue(self) -> None:
        """End the containers of an earlier process that was away from the service for too long.

        The attempts are reported when the service is back.
        """
        for item in self._files.attempts():
            is_same_boot = item["boot_id"] == boot_id()
            if is_same_boot and boottime() - item["renewed_at"] <= item["lost_after"]:
                continue
            try:
                for found in self._runner.list(item["label"]):
                    if (found.job_id, found.attempt) == (item["job_id"], item["attempt"]):
                        log.warning(
                            "its container is ended: the service was not reached for more than %g s "
                            "(--lost-after)",
                            item["lost_after"],
                            extra={"job_id": item["job_id"]},
                        )
                        self._runner.remove(found.container_id)
            except InfrastructureError as exc:
                log.warning("its container is not ended yet: %s", exc, extra={"job_id": item["job_id"]})

    # --- its parts -----------------------------------------------------------------------------

    def _limits(self, session: Session) -> Limits:
        """Return the limits: the service's own where it stores something, or waits for it."""
        limits = session.limits
        return replace(
            parts.limits(self._settings),
            cancel_grace_s=float(limits["cancel_grace"]),
            artifact_bytes=int(limits["max_artifact_bytes"]),
            artifacts=int(limits["max_artifacts"]),
            log_bytes=int(limits["max_log_bytes"]),
            cache_bytes=int(limits["max_cache_bytes"]),
        )
