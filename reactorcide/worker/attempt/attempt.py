"""The steps of one attempt of a job, in a separate thread.

Longer than 400 lines, so that the order of the steps can be read in one place; each step is in a module
beside it.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import PurePosixPath
from time import monotonic

from reactorcide import crashpoints
from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.errors import (
    InfrastructureError,
    JobFailed,
    JobInterrupted,
    LogUnavailable,
    ObjectStoreError,
    ReactorcideError,
)
from reactorcide.domain.images import with_tag
from reactorcide.domain.jobs import ARTIFACTS_DIR, OUTPUT_FILE, VARIABLES_FILE, Job, OpenAttempt, Outcome
from reactorcide.lib.clock import now_ms
from reactorcide.lib.sizes import format_size
from reactorcide.logs.masking import hide_in_own_log
from reactorcide.logs.writer import LogWriter
from reactorcide.runner import ContainerGone, ContainerRestarted, ContainerSpec, Exit, Runner, Started
from reactorcide.worker.attempt.artifacts import collect
from reactorcide.worker.attempt.caches import Caches
from reactorcide.worker.attempt.container import Container, Progress, gone_because, quoted_output
from reactorcide.worker.attempt.ending import Ending
from reactorcide.worker.attempt.limits import Limits
from reactorcide.worker.attempt.output import Recorder
from reactorcide.worker.attempt.outputs import read_outputs
from reactorcide.worker.attempt.patience import Patience
from reactorcide.worker.attempt.report import Report
from reactorcide.worker.attempt.services import Services
from reactorcide.worker.background import Background
from reactorcide.worker.interrupt import Interrupt
from reactorcide.worker.port import WorkerPort
from reactorcide.worker.prepare import Preparation, Source

log = logging.getLogger("reactorcide.worker")

_INTERNAL_ERROR = "an internal error of the service; its own log says more"


class Attempt:
    """Runs a claimed attempt, or adopts one of an earlier process, in any state.

    ``run`` is called once, in a separate thread, and never raises: every failure ends in the job's ``error``
    or in the service's log.
    """

    def __init__(
        self,
        port: WorkerPort,
        runner: Runner,
        background: Background,
        preparation: Preparation,
        limits: Limits,
        job: Job,
        adopted: OpenAttempt | None = None,
    ) -> None:
        self._port = port
        self._runner = runner
        self._preparation = preparation
        self._limits = limits
        self.job = job
        self._adopted = adopted
        self.interrupt = Interrupt()
        self._log_fields = {"job_id": job.job_id, "attempt": job.attempt}
        self._patiently = Patience(self.interrupt, self._log_fields)
        self._services = Services(port, runner, job, self._log_fields)
        self._container = Container(
            runner,
            background,
            self.interrupt,
            self._patiently,
            self._log_fields,
            memory_limit_bytes=job.definition.memory_limit_bytes,
            services=lambda: self._services.container_ids,
            adopted=adopted,
        )
        self._caches = Caches(port, runner, job, limits, self.interrupt, self._patiently)
        self._ending = Ending(self._container, self.interrupt, limits, job.definition.timeout_seconds)
        self._recorder: Recorder | None = None
        self._report = Report(
            port,
            job,
            self._container,
            self._patiently,
            self._log_fields,
            is_adopted=adopted is not None,
        )

    @property
    def deadline(self) -> float | None:
        """The deadline of the command, by ``time.monotonic``; ``None`` during the preparation."""
        return self._ending.deadline

    def run(self) -> None:
        """Run the attempt to its end, or until the service stops."""
        hide_in_own_log(self.job.definition)
        try:
            self._run()
        except JobInterrupted:
            log.info("left to the next start of the service", extra=self._log_fields)
        except Exception:
            # The row does not change: the next adoption decides by the engine's state.
            log.exception("the attempt could not be finished", extra=self._log_fields)

    def check_disk(self) -> None:
        """Kill the container if it exceeds the disk limit of a job; from any thread.

        Raises ``EngineUnavailable``.
        """
        recorder = self._recorder
        if recorder is None:
            return
        if self._container.disk_bytes(recorder.copy_bytes) > self._limits.max_disk_bytes:
            self._ending.disk_exceeded()
            if self.deadline is None:
                # The output of an image's shell before it accepts the command.
                self._container.signal("KILL")
            recorder.wake()

    def _run(self) -> None:
        try:
            with self._closing(self._open_log()) as log_writer:
                outcome = self._outcome(log_writer)
                self._patiently(log_writer.end)
                self._report.log_truncated = log_writer.truncated
        except JobInterrupted:
            self._report.interrupted(self.interrupt)
        except InfrastructureError as exc:
            self._report.infrastructure_failed(exc)
        else:
            self._report.ended(outcome)

    def _open_log(self) -> LogWriter:
        def opened() -> LogWriter:
            return self._port.open_log(self.job, max_bytes=self._limits.log_bytes)

        try:
            # A running command is not ended because of a full disk.
            return opened() if self._adopted is None else self._patiently(opened)
        except ReactorcideError:
            raise
        except Exception as exc:
            log.exception("its log could not be opened", extra=self._log_fields)
            raise InfrastructureError(_INTERNAL_ERROR) from exc

    @contextmanager
    def _closing(self, log_writer: LogWriter) -> Iterator[LogWriter]:
        """Close the log afterwards, as soon as the job database can be reached."""
        try:
            yield log_writer
        finally:
            self._patiently(log_writer.close, LogUnavailable)

    def _say(self, log_writer: LogWriter, sentence: str) -> None:
        """Add a line to the log, as soon as the job database can be reached.

        If the log fails otherwise, the attempt's row has the error.
        """
        with contextlib.suppress(ObjectStoreError):
            self._patiently(partial(log_writer.say, sentence), LogUnavailable)

    def _outcome(self, log_writer: LogWriter) -> Outcome:
        try:
            return self._conclude(self._run_command(log_writer), log_writer)
        except JobInterrupted:
            raise
        except InfrastructureError as exc:
            self._say(log_writer, str(exc))
            with contextlib.suppress(ObjectStoreError):
                self._patiently(log_writer.end, LogUnavailable)
                self._report.log_truncated = log_writer.truncated
            raise
        except JobFailed as exc:
            problem = str(exc)
        except ContainerGone as exc:
            problem = self._container_lost(exc)
        except Exception:
            if self._adopted is None and self._container.progress is not Progress.PREPARING:
                # The command continues, and is adopted. A repeated failure is not temporary.
                raise
            log.exception("the attempt failed unexpectedly", extra=self._log_fields)
            problem = _INTERNAL_ERROR
        self._say(log_writer, problem)
        return Outcome(exit_code=None, error=problem)

    # --- from the source to the command's end --------------------------------------------------

    def _run_command(self, log_writer: LogWriter) -> Exit:
        try:
            if self._adopted is None:
                return self._run_new(log_writer)
            return self._run_adopted(log_writer, self._adopted)
        except ContainerGone as exc:
            if self._container.progress is Progress.PREPARING:
                # Nothing of the job has run yet.
                raise InfrastructureError(
                    "somebody removed its container before its command had started"
                ) from exc
            raise
        except InfrastructureError as exc:
            if self._ending.disk_problem is not None:
                raise JobFailed(self._ending.disk_problem) from exc
            raise
        except ReactorcideError:
            raise
        except Exception as exc:
            if self._container.progress is Progress.PREPARING:
                log.exception("the attempt failed unexpectedly", extra=self._log_fields)
                raise InfrastructureError(_INTERNAL_ERROR) from exc
            raise
        finally:
            self._services.stop_watching()

    def _run_new(self, log_writer: LogWriter) -> Exit:
        container, deadline = self._container, monotonic() + self._limits.prepare_timeout_s
        check = partial(self._check_preparing, deadline)
        spec = self._prepare(log_writer, deadline)
        log_writer.end_output()
        recorder = self._record_into(log_writer, log_writer.size_bytes)
        with closing(self._runner.attach(container.container_id)) as output:
            crashpoints.reached("container-attached")
            check()
            started = container.start()
            crashpoints.reached("container-started")
            self._start_services(log_writer, check)
            self._begin_hand_over(started, recorder.output_start)
            crashpoints.reached("handing-over-written")
            timeout_s = self.job.definition.timeout_seconds
            if container.hand_over(output, spec, started, timeout_s=timeout_s):
                self._begin_run(now_ms())
                return recorder.record(output)
            printed, is_sent = output.launcher_output, output.is_sent
        problem = f"its container did not acknowledge the command{quoted_output(printed)}"
        if not is_sent and container.late is None:
            container.progress = Progress.PREPARING
            raise InfrastructureError(problem)
        container.require_command(problem, printed)
        self._begin_run(now_ms())
        return recorder.record_copy()

    def _run_adopted(self, log_writer: LogWriter, adopted: OpenAttempt) -> Exit:
        """Continue an attempt of an earlier process, or detect that nothing of it has run."""
        problem = "the service was killed before the command had started"
        self._patiently(self._services.adopt)
        if self._container.progress is Progress.PREPARING or not self._container.exists:
            raise InfrastructureError(problem)
        recorder = self._record_into(log_writer, adopted.log_offset)
        if adopted.started_at_ms is None:
            self._container.require_command(problem)
            self._begin_run(adopted.handing_over_at_ms or now_ms())
        else:
            self._ending.command_started(adopted.started_at_ms)
            self._watch_services()
        return recorder.record_copy()

    def _prepare(self, log_writer: LogWriter, deadline: float) -> ContainerSpec:
        """Create the container and copy the source into it; returns the prepared parts."""
        job, container = self.job, self._container
        check = partial(self._check_preparing, deadline)
        image = self._preparation.image(job.definition)
        with self._preparation.source(
            self._port, job, log_writer.write, self.interrupt, deadline, check
        ) as source:
            self._caches.load(log_writer.say)
            spec = self._spec(image, source)
            container.create(
                spec,
                pull=self._limits.pull,
                progress=log_writer.say,
                pulled=self._image_pulled,
                check=check,
            )
            crashpoints.reached("container-created")
            self._services.create(
                spec,
                container.container_id,
                self._preparation.rules.service_images(job.definition),
                pull=self._limits.pull,
                progress=log_writer.say,
                check=check,
            )

            def owner() -> tuple[int, int]:
                return self._runner.owner(container.container_id)

            tar = source.tar(owner)
            if tar is not None:
                self._runner.put(container.container_id, self._within_disk(self._caches.hashing(tar)))
            crashpoints.reached("source-put")
            self._caches.restore(container.container_id, owner, log_writer.say, check)
        return spec

    def _start_services(self, log_writer: LogWriter, check: Callable[[], None]) -> None:
        """Start the job's services and wait until they are ready; raises ``JobFailed``."""

        def check_all() -> None:
            check()
            if self._ending.disk_problem is not None:
                raise JobFailed(self._ending.disk_problem)

        say = partial(self._say, log_writer)
        try:
            self._services.start(say, check_all)
        except JobFailed:
            self._services.keep_logs(say)
            raise

    def _within_disk(self, tar: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the tar on its way into the container; raises ``JobFailed`` if it is too large."""
        max_bytes = self._limits.max_disk_bytes
        size_bytes = 0
        for chunk in tar:
            size_bytes += len(chunk)
            if 0 < max_bytes < size_bytes:
                limit = format_size(max_bytes)
                what = "the source takes" if self.job.run_id is None else "the source and what it needs take"
                raise JobFailed(f"{what} more than {limit} of the disk (--max-disk)")
            yield chunk

    def _check_preparing(self, deadline: float) -> None:
        self.interrupt.check()
        if monotonic() >= deadline:
            raise JobFailed(f"preparing took longer than {self._limits.prepare_timeout_s:g} s")

    def _spec(self, image: str, source: Source) -> ContainerSpec:
        definition = self.job.definition
        return ContainerSpec(
            instance_id=self._port.instance_id,
            job_id=self.job.job_id,
            attempt=self.job.attempt,
            image=image,
            command=definition.job_command,
            env=_service_env(self.job) | dict(source.env) | dict(definition.job_env_vars),
            working_dir=definition.job_dir,
            cpu_limit=definition.cpu_limit,
            memory_limit_bytes=definition.memory_limit_bytes,
            pids_limit=self._limits.pids,
            host_names=tuple(definition.services or ()),
            user=None if source.of_run is None else source.of_run.user,
            can_be_warm=_can_be_warm(definition) and not self._caches.are_named,
        )

    def _image_pulled(self, image_id: str) -> None:
        self._port.image_pulled(with_tag(self.job.definition.runner_image), image_id)

    def _watch_services(self) -> None:
        recorder = self._recorder

        def ended(problem: str) -> None:
            self._ending.service_ended(problem)
            if recorder is not None:
                recorder.wake()

        self._services.watch(ended)

    def _record_into(self, log_writer: LogWriter, output_start: int) -> Recorder:
        self._recorder = Recorder(
            self._container,
            self._ending,
            self.interrupt,
            self._patiently,
            log_writer,
            self._log_fields,
            output_start=output_start,
            copy_timeout_s=self._limits.collect_timeout_s,
        )
        return self._recorder

    def _begin_hand_over(self, started: Started, log_offset: int) -> None:
        """Commit the start of the handover, before the first byte of the command is sent."""
        at_ms = now_ms()
        self._patiently(
            lambda: self._port.handing_over(
                self.job,
                self._container.container_id,
                container_started_at=started.at,
                at_ms=at_ms,
                log_offset=log_offset,
            )
        )
        self._container.progress = Progress.HANDING_OVER

    def _begin_run(self, started_at_ms: int) -> None:
        """Record that the command runs. From here on only the job's retries repeat it."""
        self._container.progress = Progress.STARTED
        self._ending.command_started(started_at_ms)
        self._patiently(lambda: self._port.started(self.job, at_ms=started_at_ms))
        self._watch_services()
        crashpoints.reached("start-written")

    # --- from the command's end to the outcome -------------------------------------------------

    def _conclude(self, ended: Exit, log_writer: LogWriter) -> Outcome:
        """Turn the end of the command into the outcome of the attempt, and store its artifacts."""
        crashpoints.reached("command-ended")
        log_problem = None if self._recorder is None else self._recorder.problem
        error = self._ending.reason or self._container.exit_problem(ended)
        # A command usually fails before the watch notices that its service has ended.
        service_problem = self._services.problem() if error and self._ending.reason is None else None
        problems = [item for item in (error, service_problem, log_problem) if item is not None]
        for problem in problems:
            self._say(log_writer, problem)
        self._services.keep_logs(partial(self._say, log_writer))
        artifacts_key = outputs = None
        if self.job.run_id is not None:
            try:
                outputs = read_outputs(self.job, self._container, partial(self._say, log_writer))
            except (InfrastructureError, JobFailed, ContainerGone) as exc:
                reason = gone_because(exc) if isinstance(exc, ContainerGone) else str(exc)
                problems.append(reason)
                self._say(log_writer, reason)
        try:
            artifacts_key = collect(
                self._port,
                self.job,
                self._container,
                log_writer,
                self._limits,
                self.interrupt,
                self._patiently,
            )
        except (InfrastructureError, JobFailed, ContainerGone) as exc:
            reason = gone_because(exc) if isinstance(exc, ContainerGone) else str(exc)
            problems.append(f"its artifacts could not be stored: {reason}")
            self._say(log_writer, problems[-1])
        crashpoints.reached("artifacts-stored")
        if not problems:
            self._caches.save(self._container.container_id, partial(self._say, log_writer))
        return Outcome(
            exit_code=ended.exit_code,
            error="; ".join(problems) or None,
            artifacts_object_key=artifacts_key,
            outputs=outputs,
        )

    def _container_lost(self, exc: ContainerGone) -> str:
        """Return the error for a container that was removed before its exit code was known."""
        if self._container.progress is Progress.HANDING_OVER:
            return (
                f"{gone_because(exc)} while the command was handed over, so whether that has run is not known"
            )
        if isinstance(exc, ContainerRestarted):
            return f"{gone_because(exc)}, so how the command ended is not known"
        if self._adopted is not None:
            return f"worker {self._adopted.worker_id} was lost while it ran, and its container is gone"
        return "the container was removed while the job ran"


def _can_be_warm(definition: JobDefinition) -> bool:
    """Return whether a job's files may be copied into a started container.

    Not if they could replace the command's working directory, or files that its shell reads at start.
    """
    is_own_directory = PurePosixPath("/job") in PurePosixPath(definition.code_dir).parents
    return is_own_directory and definition.job_dir == definition.code_dir


def _service_env(job: Job) -> dict[str, str]:
    """Return the variables that every job gets."""
    definition = job.definition
    of_run = {
        "REACTORCIDE_OUTPUT": OUTPUT_FILE,
        "RC_WF_OUTPUT_FILE": OUTPUT_FILE,
        "RC_WF_VARS_FILE": VARIABLES_FILE,
    }
    return {
        "CI": "true",
        "REACTORCIDE": "true",
        "REACTORCIDE_JOB_ID": job.job_id,
        "REACTORCIDE_JOB_NAME": definition.name,
        "REACTORCIDE_QUEUE": definition.queue_name,
        "REACTORCIDE_ATTEMPT": str(job.attempt),
        "REACTORCIDE_CODE_DIR": definition.code_dir,
        "REACTORCIDE_ARTIFACTS_DIR": ARTIFACTS_DIR,
        **(of_run if job.run_id is not None else {}),
    }
