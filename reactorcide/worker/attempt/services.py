"""The services of one attempt: started before its command, watched while it runs, removed with it."""

import logging
import re
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic

from reactorcide import crashpoints
from reactorcide.domain.errors import InfrastructureError, JobFailed
from reactorcide.domain.images import with_tag
from reactorcide.domain.jobs import Job
from reactorcide.domain.secrets import secrets_of
from reactorcide.domain.services import JobService
from reactorcide.logs.masking import Masker
from reactorcide.runner import ContainerGone, ContainerSpec, Exit, ImageFacts, Runner, ServiceSpec
from reactorcide.threads import start_thread
from reactorcide.worker.attempt.container import create_with_image
from reactorcide.worker.port import WorkerPort

log = logging.getLogger("reactorcide.worker")

MAX_LOG_BYTES = 1 << 20
"""Maximum size of the stored end of one service's output."""
_MAX_READ_BYTES = 16 << 20
_MAX_LOGGED_LINES = 20
_LOOK_S = 0.02
_CHECK_PAUSE_S = 0.05
_WATCH_EVERY_S = 0.5
_ADDRESS_IN_USE = re.compile(
    rb"address (?:already )?in use|EADDRINUSE|port \S+ (?:is )?already in use", re.IGNORECASE
)


@dataclass(slots=True)
class _Service:
    """One service of the attempt, and its container."""

    name: str
    declared: JobService
    container_id: str
    facts: ImageFacts
    started_at: float = 0.0
    check_id: str | None = None
    next_check_at: float = 0.0

    @property
    def check(self) -> list[str] | None:
        """The command that succeeds when the service is ready; ``None``: it is ready once it runs."""
        if self.declared.ready is not None:
            return ["/bin/sh", "-c", self.declared.ready]
        return None if self.facts.health_check is None else list(self.facts.health_check)


class Services:
    """The services of one attempt. ``watch`` runs in a separate thread; everything else is for one thread."""

    def __init__(self, port: WorkerPort, runner: Runner, job: Job, log_fields: Mapping[str, object]) -> None:
        self._port = port
        self._runner = runner
        self._job = job
        self._log_fields = log_fields
        self._declared = job.definition.services or {}
        self._services: dict[str, _Service] = {}
        self._watch_ends = threading.Event()

    @property
    def container_ids(self) -> list[str]:
        """The known containers."""
        return [service.container_id for service in self._services.values()]

    def adopt(self) -> None:
        """Look up the containers that an earlier process created; raises ``EngineUnavailable``."""
        if not self._declared:
            return
        for info in self._runner.list(self._port.instance_id):
            is_ours = (info.job_id, info.attempt) == (self._job.job_id, self._job.attempt)
            name = info.service or ""
            if is_ours and info.is_named and name in self._declared:
                facts = ImageFacts(None, frozenset())
                self._services[name] = _Service(name, self._declared[name], info.container_id, facts)

    def create(
        self,
        spec: ContainerSpec,
        job_container_id: str,
        images: Mapping[str, str],
        *,
        pull: str,
        progress: Callable[[str], None],
        check: Callable[[], None],
    ) -> None:
        """Create the containers; pull their images first if required.

        ``images`` are the names to ask the engine for, by service. Raises ``JobFailed``.
        """
        for name, declared in self._declared.items():
            service_spec = ServiceSpec(
                name=name,
                job_container_id=job_container_id,
                job=spec,
                image=images[name],
                command=None if declared.command is None else shlex.split(declared.command),
                env=declared.environment,
            )
            with _named(name):
                container_id = create_with_image(
                    self._runner,
                    service_spec.image,
                    partial(self._runner.create_service, service_spec),
                    pull=pull,
                    progress=progress,
                    pulled=partial(self._port.image_pulled, with_tag(declared.image)),
                    check=check,
                )
                facts = self._runner.image_facts(service_spec.image)
            self._services[name] = _Service(name, declared, container_id, facts)
            crashpoints.reached("service-created")

    def start(self, say: Callable[[str], None], check: Callable[[], None]) -> None:
        """Start the services and wait until all are ready; ``check`` raises to give up.

        Raises ``JobFailed`` for a service that ends or is not ready in time; ``say`` gets the end of its log.
        """
        for service in self._services.values():
            with _named(service.name):
                self._runner.start_service(service.container_id)
            service.started_at = monotonic()
        waiting = list(self._services.values())
        while waiting:
            check()
            waiting = [service for service in waiting if not self._is_ready(service, say)]
            if waiting:
                self._watch_ends.wait(_LOOK_S)
        if self._services:
            crashpoints.reached("services-ready")

    def watch(self, ended: Callable[[str], None]) -> None:
        """Call ``ended``, with a sentence, when a service ends, until ``stop_watching``. Starts a thread."""
        if not self._services:
            return
        try:
            start_thread(partial(self._watch, ended), "services")
        except InfrastructureError as exc:
            # The command continues. ``problem`` still reports a service at the command's end.
            log.warning("the services are not watched: %s", exc, extra=self._log_fields)

    def stop_watching(self) -> None:
        """End the watch; safe to repeat."""
        self._watch_ends.set()

    def problem(self) -> str | None:
        """Return a sentence about a service that has ended; ``None`` if all are known to run."""
        for service in self._services.values():
            try:
                ended = self._runner.exit_now(service.container_id)
            except ContainerGone:
                return f"the container of service {service.name} was removed"
            except (InfrastructureError, JobFailed):
                # The engine did not answer.
                continue
            if ended is not None:
                return _exited(service.name, ended)
        return None

    def keep_logs(self, say: Callable[[str], None]) -> None:
        """Store the end of each service's log; ``say`` gets a sentence about a failure."""
        for service in self._services.values():
            try:
                self._port.put_service_log(self._job, service.name, self._log(service))
            except (InfrastructureError, JobFailed) as exc:
                say(f"the log of service {service.name} could not be stored: {exc}")
            except ContainerGone:
                say(f"the log of service {service.name} is gone with its container")

    def _watch(self, ended: Callable[[str], None]) -> None:
        while not self._watch_ends.wait(_WATCH_EVERY_S):
            problem = self.problem()
            if problem is not None:
                ended(problem)
                return

    def _is_ready(self, service: _Service, say: Callable[[str], None]) -> bool:
        ended = self._runner.exit_now(service.container_id)
        if ended is not None:
            raise JobFailed(self._end_of(service, _exited(service.name, ended), say))
        if service.check is None:
            return True
        now = monotonic()
        if service.check_id is not None:
            result = self._runner.check_result(service.check_id)
            if result == 0:
                return True
            if result is not None:
                service.check_id, service.next_check_at = None, now + _CHECK_PAUSE_S
        elif now >= service.next_check_at:
            with _named(service.name):
                service.check_id = self._runner.begin_check(service.container_id, service.check)
            if service.check_id is None:
                service.next_check_at = now + _CHECK_PAUSE_S
        timeout_s = service.declared.ready_timeout
        if now - service.started_at >= timeout_s:
            sentence = f"service {service.name} was not ready after {timeout_s} s"
            raise JobFailed(self._end_of(service, sentence, say))
        return False

    def _end_of(self, service: _Service, sentence: str, say: Callable[[str], None]) -> str:
        """Return the error of a failed service, and print the end of its log."""
        printed = self._log(service)
        if _ADDRESS_IN_USE.search(printed):
            sentence += f": {self._conflict(service)}"
        lines = printed.decode(errors="replace").splitlines()[-_MAX_LOGGED_LINES:]
        if lines:
            say(f"the end of the log of service {service.name}:")
            for line in lines:
                say(f"  {line}")
            sentence += f"; its log ends: {lines[-1].strip()[:500]}"
        return sentence

    def _conflict(self, service: _Service) -> str:
        """Return a sentence about the other service that uses a service's port."""
        others = [other for other in self._services.values() if other is not service]
        same = [other for other in others if other.facts.ports & service.facts.ports] or others
        if not same:
            return "its port is taken, and it shares the network with the job"
        names = " or ".join(other.name for other in same)
        return f"its port is taken by service {names}, and services of a job share one network"

    def _log(self, service: _Service) -> bytes:
        printed = self._runner.output_end(service.container_id, _MAX_READ_BYTES)
        # Cut only after masking: a part of a cut secret would not be recognized.
        return Masker(secrets_of(self._job.definition)).whole(printed)[-MAX_LOG_BYTES:]


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Add the service's name to errors of the engine."""
    try:
        yield
    except JobFailed as exc:
        raise JobFailed(f"service {name}: {exc}") from exc


def _exited(name: str, ended: Exit) -> str:
    return f"service {name} exited {ended.exit_code}" + (" (out of memory)" if ended.oom_killed else "")
