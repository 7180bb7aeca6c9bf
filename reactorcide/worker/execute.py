"""One attempt of a job, from its source to its artifacts, in a thread of its own."""

import contextlib
import logging
import math
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from time import monotonic
from typing import TypeVar

from reactorcide import crashpoints
from reactorcide.corndogs.task import Task
from reactorcide.domain.clock import now_ms
from reactorcide.domain.errors import (
    EngineUnavailable,
    InfrastructureError,
    JobFailed,
    JobInterrupted,
    NotFound,
    ObjectStoreError,
    ReactorcideError,
    StoreError,
)
from reactorcide.domain.images import with_tag
from reactorcide.domain.jobs import ARTIFACTS_DIR, Job, OpenAttempt, Outcome
from reactorcide.domain.secrets import secrets_of
from reactorcide.domain.sizes import format_size
from reactorcide.jobs import JobContext, lifecycle
from reactorcide.jobs.delete import purge_ended
from reactorcide.logs.copy import copied_bytes
from reactorcide.logs.lines import HOLD_S
from reactorcide.logs.masking import hide_in_own_log
from reactorcide.logs.writer import DEFAULT_MOST_BYTES, LogWriter
from reactorcide.runner import (
    AttachedOutput,
    ContainerGone,
    ContainerRestarted,
    ContainerSpec,
    Exit,
    ImageMissing,
    Output,
    Runner,
    Signal,
    Started,
)
from reactorcide.runner.handover import NOT_HANDED_OVER
from reactorcide.worker.collect import CollectingEnded, store_artifacts
from reactorcide.worker.interrupt import Interrupt, Reason
from reactorcide.worker.prepare import Preparation, Source

T = TypeVar("T")

log = logging.getLogger("reactorcide.worker")

MOST_PREPARATION_FAILURES = 2
"""How often a job is prepared again after that failed through no fault of its own."""
MOST_KILLED_PREPARATIONS = 20
"""How often a job is prepared again after the service was killed meanwhile."""
_FIRST_RETRY_DELAY_S = 5.0
_LONGEST_KILLED_DELAY_S = 10.0
_RETRY_DELAY_S = 1.0
_SILENCE_S = 15.0
"""After this long without output the engine is asked whether the container still runs."""
_ENGINE_RETRY_S = 1.0
_ARTIFACTS_TRIES = 5
"""With an engine that answers; one that is away is waited for."""
_STORE_RETRY_S = 5.0
"""Each try reads the whole output again."""
_EXIT_WAIT_S = 1.0
"""After the end of its output a command has ended within milliseconds."""
_LOOK_S = 0.05
_HAND_OVER_S = 120.0
"""The most for a container to acknowledge its command: that takes milliseconds, a MiB of newlines seconds."""
_UNSEEN_HAND_OVER_S = 5.0
"""For which the acknowledgement of a command is looked for that was on its way when its sender was lost."""
_COPY_TRIES = 5
"""With an engine that answers; one that is away is waited for."""
_NO_PROGRAM = (126, 127)
"""How an init ends that cannot run the launcher's shell."""
_SENT_BY_OTHERS = (NOT_HANDED_OVER, 137, 143)
"""How a launcher ends whose input ended, or that somebody has stopped."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the operator allows every job."""

    prepare_timeout_s: float
    cancel_grace_s: float
    pids: int
    artifact_bytes: int
    artifacts: int
    """Files; what a job leaves beyond either is not kept."""
    collect_timeout_s: float = 300.0
    """For reading what a job left; what has not been read by then is not kept."""
    pull: str = "missing"
    """When an image is pulled: ``always``, ``missing`` or ``never``."""
    max_disk_bytes: int = 0
    """What a container may take of the engine's disk; 0 is no limit."""
    log_bytes: int = DEFAULT_MOST_BYTES


class Progress(Enum):
    """How far an attempt has come, which decides whether it may be repeated."""

    PREPARING = auto()
    """Nothing of its command has been handed over, or for certain not all: nothing has run."""
    HANDING_OVER = auto()
    """The row says so. Whether the command runs is known from the engine's copy of the output alone."""
    STARTED = auto()
    """The command runs or has run, or may have."""


class Attempt:
    """Runs a claimed attempt, or takes over one that an earlier process left, whatever it left.

    ``run`` is called once, in a thread of its own, and never raises: whatever happens ends in the
    job's ``error`` or in the service's log.
    """

    def __init__(
        self,
        context: JobContext,
        runner: Runner,
        preparation: Preparation,
        limits: Limits,
        job: Job,
        task: Task | None,
        adopted: OpenAttempt | None = None,
    ) -> None:
        self._context = context
        self._runner = runner
        self._preparation = preparation
        self._limits = limits
        self.job = job
        self.task = task
        self._adopted = adopted
        self.interrupt = Interrupt()
        self.deadline: float | None = None
        """When the command's time is up, by ``time.monotonic``; ``None`` while it is being prepared."""
        self._container_id: str | None = adopted.container_id if adopted else None
        self._container_started_at = adopted.container_started_at if adopted else None
        self._log_offset = adopted.log_offset if adopted else 0
        self._log_truncated = False
        self._progress = Progress.PREPARING if adopted is None else _progress_of(adopted)
        self._output: Output | None = None
        """Of the container, once it runs."""
        self._takes_too_much = False
        """Of the engine's disk; then the container is killed."""
        self._copy_bytes = 0
        """What the engine's copy of the output takes, about; the engine does not tell."""
        self.task_lock = threading.Lock()
        """Held while the task is renewed or closed: a late renewal would bring a closed task back."""
        self.task_closed = task is None

    def run(self) -> None:
        """Run the attempt to its end, or until the service stops."""
        hide_in_own_log(self.job.definition)
        try:
            self._run()
        except JobInterrupted:
            log.info("left to the next start of the service", extra=self._extra())
        except Exception:
            # The row stays as it is: it is judged anew by what the engine has.
            log.exception("the attempt could not be finished", extra=self._extra())

    def check_disk(self) -> None:
        """Have the container killed where it takes more of the disk than a job may; from any thread.

        Raises ``EngineUnavailable``.
        """
        container_id = self._container_id
        if container_id is None or self.deadline is None:
            return
        try:
            used_bytes = self._runner.disk_bytes(container_id)
            copy_bytes = self._runner.copy_bytes(container_id) or self._copy_bytes
        except ContainerGone:
            return
        if used_bytes is not None and used_bytes + copy_bytes > self._limits.max_disk_bytes:
            self._takes_too_much = True
            if self._output is not None:
                self._output.wake()

    def _run(self) -> None:
        try:
            with closing(self._open_log()) as log_writer:
                outcome = self._outcome(log_writer)
                self._patiently(log_writer.end)
                self._log_truncated = log_writer.truncated
        except JobInterrupted:
            self._end_interrupted()
        except InfrastructureError as exc:
            self._end_infrastructure(exc)
        else:
            self._end(outcome)

    def _open_log(self) -> LogWriter:
        def opened() -> LogWriter:
            return LogWriter(
                self._context.objects,
                self._context.signals,
                self.job.job_id,
                self.job.attempt,
                secrets=secrets_of(self.job.definition),
                most_bytes=self._limits.log_bytes,
            )

        # What runs already is not ended for a full disk.
        return opened() if self._adopted is None else self._patiently(opened)

    def _outcome(self, log_writer: LogWriter) -> Outcome:
        try:
            return self._run_or_take_over(log_writer)
        except JobInterrupted:
            raise
        except InfrastructureError as exc:
            _say(log_writer, str(exc))
            with contextlib.suppress(ObjectStoreError):
                log_writer.end()
                self._log_truncated = log_writer.truncated
            raise
        except JobFailed as exc:
            reason = str(exc)
        except ContainerGone as exc:
            reason = self._lost_container(exc)
        except Exception:
            log.exception("the attempt failed unexpectedly", extra=self._extra())
            reason = "an internal error of the service; its own log says more"
        _say(log_writer, reason)
        return Outcome(exit_code=None, error=reason)

    def _run_or_take_over(self, log_writer: LogWriter) -> Outcome:
        try:
            if self._adopted is None:
                return self._run_container(log_writer)
            return self._take_over(log_writer, self._adopted)
        except ContainerGone as exc:
            if self._progress is Progress.PREPARING:
                # Nothing of the job has run.
                raise InfrastructureError(
                    "somebody removed its container before its command had started"
                ) from exc
            raise

    def _run_container(self, log_writer: LogWriter) -> Outcome:
        job, runner = self.job, self._runner
        prepare_deadline = monotonic() + self._limits.prepare_timeout_s

        def check() -> None:
            self.interrupt.check()
            if monotonic() >= prepare_deadline:
                raise JobFailed(f"preparing took longer than {self._limits.prepare_timeout_s:g} s")

        image = self._preparation.image(job.definition)
        with self._preparation.source(
            self._context, job, log_writer.write, self.interrupt, prepare_deadline, check
        ) as source:
            spec = self._spec(image, source)
            container_id = self._create(spec, log_writer, check)
            self._container_id = container_id
            crashpoints.reached("container-created")
            tar = source.tar(lambda: runner.owner(container_id))
            if tar is not None:
                runner.put(container_id, tar)
            crashpoints.reached("source-put")
        log_writer.end_output()
        output = runner.attach(container_id)
        try:
            crashpoints.reached("container-attached")
            check()
            started = runner.start(container_id)
            crashpoints.reached("container-started")
            self._begin_hand_over(container_id, started, log_writer.size_bytes)
            crashpoints.reached("handing-over-written")
            if self._hand_over(output, spec, started):
                self._begin_run(now_ms())
                ended_because, stored = self._supervise(container_id, output, log_writer, self._deadline())
                return self._judge(container_id, ended_because, log_writer, whole=stored)
            said, is_sent = output.launcher_said, output.is_sent
        finally:
            output.close()
        if not is_sent:
            self._progress = Progress.PREPARING
            raise InfrastructureError(_not_acknowledged(said))
        self._see_whether_it_runs(container_id, _not_acknowledged(said), said)
        self._begin_run(now_ms())
        return self._judge(container_id, None, log_writer, whole=False)

    def _take_over(self, log_writer: LogWriter, adopted: OpenAttempt) -> Outcome:
        """Go on with an attempt of an earlier process, or find that nothing of it has run."""
        container_id = adopted.container_id
        if container_id is None or self._progress is Progress.PREPARING:
            raise InfrastructureError("the service was killed before the command had started")
        if adopted.started_at_ms is None:
            self._see_whether_it_runs(container_id, "the service was killed before the command had started")
            self._begin_run(adopted.handing_over_at_ms or now_ms())
        else:
            self._set_deadline(adopted.started_at_ms)
        return self._judge(container_id, None, log_writer, whole=False)

    # --- the hand-over -------------------------------------------------------------------------

    def _begin_hand_over(self, container_id: str, started: Started, log_offset: int) -> None:
        """Commit that the command may be on its way, before the first byte of it is."""
        self._container_started_at, self._log_offset = started.at, log_offset
        at_ms = now_ms()
        self._patiently(
            lambda: self._context.store.attempts.begin_hand_over(
                self.job.job_id,
                self.job.attempt,
                container_id,
                container_started_at=started.at,
                now_ms=at_ms,
                log_offset=log_offset,
            )
        )
        self._progress = Progress.HANDING_OVER

    def _hand_over(self, output: AttachedOutput, spec: ContainerSpec, started: Started) -> bool:
        """Send the command; tells whether it was acknowledged, on this connection and in time.

        Raises ``JobInterrupted`` for a cancel and for the service's stop.
        """
        deadline = monotonic() + _HAND_OVER_S
        output.hand_over(spec, started)
        with self.interrupt.calling(output.wake):
            while not output.acknowledged:
                if self.interrupt.reason is not None:
                    raise JobInterrupted("while the command was handed over")
                left_s = deadline - monotonic()
                if left_s <= 0 or output.read(left_s) is None:
                    return False
        crashpoints.reached("hand-over-acknowledged")
        return True

    def _see_whether_it_runs(self, container_id: str, problem: str, said: bytes = b"") -> None:
        """Return if the command runs, or has run, though nobody saw the acknowledgement.

        Where it has not, the container has ended, and this raises ``InfrastructureError`` with the
        ``problem``, or ``JobFailed`` where the image's shell is to blame. Raises ``ContainerGone`` where it
        cannot be known.
        """
        ended = self._end_of_launcher(container_id)
        if ended is None:
            return
        self._progress = Progress.PREPARING
        raise self._not_run(ended, problem, said)

    def _end_of_launcher(self, container_id: str) -> Exit | None:
        """Return how a container has ended whose command did not run; ``None`` for one that runs or has run.

        A container that goes on waiting is killed. Nothing is concluded from its exit code: TERM, KILL and
        a lack of memory come before the command, too, and commands have the same codes.
        """
        gives_up_at = monotonic() + _UNSEEN_HAND_OVER_S
        tries = 0
        while True:
            # Asked before the copy is read, which is whole only when the container has ended.
            try:
                ended = self._wait(container_id, _LOOK_S)
            except ContainerRestarted:
                ended = Exit(NOT_HANDED_OVER, oom_killed=False)
            try:
                if self._runner.is_acknowledged(container_id):
                    return None
                if ended is not None:
                    return ended
            except EngineUnavailable as exc:
                self._patiently(self._runner.check)
                tries += 1
                if tries == _COPY_TRIES:
                    # What cannot be read may have said that the command runs.
                    log.warning("taken to have run: %s", exc, extra=self._extra())
                    return None
            if monotonic() >= gives_up_at:
                self._signal(container_id, "KILL")
            self.interrupt.pause(_LOOK_S)
            if self.interrupt.reason is Reason.STOPPING:
                raise JobInterrupted("stopping")

    def _not_run(self, ended: Exit, problem: str, said: bytes) -> ReactorcideError:
        if ended.oom_killed:
            return JobFailed(f"{self._out_of_memory()}, before the command had started")
        if ended.exit_code in _SENT_BY_OTHERS:
            return InfrastructureError(problem)
        if ended.exit_code in _NO_PROGRAM:
            return JobFailed(f"the image has no /bin/sh that can be run{_quoted(said)}")
        return JobFailed(
            f"the image's /bin/sh ended with exit code {ended.exit_code} before it took the command"
            + _quoted(said)
        )

    def _begin_run(self, started_at_ms: int) -> None:
        """Record that the command runs. From here on it is repeated only as far as the job's retries go."""
        self._progress = Progress.STARTED
        self._set_deadline(started_at_ms)
        self._patiently(lambda: lifecycle.started(self._context, self.job, at_ms=started_at_ms))
        crashpoints.reached("start-written")

    def _set_deadline(self, started_at_ms: int) -> None:
        ran_s = (now_ms() - started_at_ms) / 1000
        self.deadline = monotonic() + self.job.definition.timeout_seconds - max(0.0, ran_s)

    def _deadline(self) -> float:
        return self.deadline or 0.0

    # --- the container -------------------------------------------------------------------------

    def _wait(self, container_id: str, timeout_s: float) -> Exit | None:
        return self._patiently(lambda: self._runner.wait(container_id, timeout_s, self._container_started_at))

    def _reread(self, container_id: str, log_writer: LogWriter, deadline: float) -> tuple[str | None, bool]:
        """Go on with the log from the engine's own copy, and follow that to the container's end.

        Returns what ``_supervise`` does.
        """
        output = self._patiently(
            lambda: self._runner.reread(container_id, was_handed_over=self._container_started_at is not None)
        )
        try:
            # Not before the other copy is there to be read.
            self._patiently(lambda: log_writer.restart(self._log_offset))
            self._copy_bytes = 0
            return self._supervise(container_id, output, log_writer, deadline)
        finally:
            output.close()

    def _spec(self, image: str, source: Source) -> ContainerSpec:
        definition = self.job.definition
        return ContainerSpec(
            instance_id=self._context.instance_id,
            job_id=self.job.job_id,
            attempt=self.job.attempt,
            image=image,
            command=definition.job_command,
            env=_service_env(self.job) | dict(source.env) | dict(definition.job_env_vars),
            working_dir=definition.job_dir,
            cpu_limit=definition.cpu_limit,
            memory_limit_bytes=definition.memory_limit_bytes,
            pids_limit=self._limits.pids,
        )

    def _create(self, spec: ContainerSpec, log_writer: LogWriter, check: Callable[[], None]) -> str:
        image = spec.image
        check()
        if self._limits.pull == "always":
            self._runner.pull(image, log_writer.say, check)
            check()
        try:
            # Asking for the image first would cost every job a call that only the first one needs.
            return self._runner.create(spec)
        except ImageMissing as exc:
            if self._limits.pull == "never":
                raise JobFailed(f"image not found: {image} is not here, and --pull is never") from exc
            image_id = self._runner.pull(image, log_writer.say, check)
            self._context.store.images.add(
                with_tag(self.job.definition.runner_image), image_id, now_ms=now_ms()
            )
        check()
        try:
            return self._runner.create(spec)
        except ImageMissing as exc:
            raise JobFailed(f"image not found: {image}") from exc

    def _supervise(
        self, container_id: str, output: Output, log_writer: LogWriter, deadline: float
    ) -> tuple[str | None, bool]:
        """Copy the output to the log until it ends.

        Returns why it was made to end, if it was, and whether the log took all of it: where it did not,
        the rest is thrown away, for a reader that waits would hold up the container. Raises
        ``JobInterrupted`` when the service stops: the container goes on without us.
        """
        ended_because: str | None = None
        stored = True
        kill_at: float | None = None
        self._output = output
        silent_since = monotonic()
        with self.interrupt.calling(output.wake):
            while True:
                now = monotonic()
                if ended_because is None:
                    if self.interrupt.reason is Reason.CANCELLED:
                        ended_because = "cancelled"
                    elif self._takes_too_much:
                        limit = format_size(self._limits.max_disk_bytes)
                        ended_because = f"killed: used more than {limit} of disk (--max-disk)"
                    elif now >= deadline:
                        ended_because = f"timed out after {self.job.definition.timeout_seconds} s"
                    elif self.interrupt.reason is Reason.STOPPING:
                        raise JobInterrupted("stopping")
                    if ended_because is not None:
                        self._signal(container_id, "TERM")
                        # Given a grace, it would go on filling the disk.
                        grace_s = 0.0 if self._takes_too_much else self._limits.cancel_grace_s
                        kill_at = now + grace_s
                elif kill_at is not None and now >= kill_at:
                    self._signal(container_id, "KILL")
                    kill_at = now + _ENGINE_RETRY_S
                next_event = deadline if kill_at is None else kill_at
                wait_s = HOLD_S if log_writer.holds else _SILENCE_S
                printed = output.read(min(next_event - now, wait_s))
                if printed is None:
                    return ended_because, stored and self._store(log_writer.flush)
                if stored and (printed or log_writer.holds):
                    stored = self._store(partial(log_writer.feed, printed) if printed else log_writer.flush)
                if printed:
                    if stored:
                        self._copy_bytes = log_writer.copied_bytes
                    else:
                        self._copy_bytes += sum(
                            copied_bytes(len(data), data.count(b"\n")) for _, data in printed
                        )
                    crashpoints.reached("output-half-read")
                    silent_since = monotonic()
                elif monotonic() - silent_since >= _SILENCE_S:
                    silent_since = monotonic()
                    if self._has_ended(container_id):
                        return ended_because, stored

    def _store(self, add: Callable[[], None]) -> bool:
        """Add to the log; tells whether it was possible."""
        try:
            add()
        except ObjectStoreError as exc:
            log.warning("the rest of its log is written when it has ended: %s", exc, extra=self._extra())
            return False
        return True

    def _judge(
        self, container_id: str, ended_because: str | None, log_writer: LogWriter, *, whole: bool
    ) -> Outcome:
        """Turn the end of the output into the outcome of the attempt, and keep its artifacts.

        ``whole`` says whether the log has all that was printed, if the command has ended by now.
        """
        certain = False
        problems: list[str] = []
        while True:
            asked_at = monotonic()
            ended = self._wait(container_id, _EXIT_WAIT_S if whole else _LOOK_S)
            # A command's output ends with the command. Where the command went on, or the engine was away, the
            # connection was lost, and what it did not bring is in the engine's own copy.
            in_time = monotonic() - asked_at < _EXIT_WAIT_S
            if ended is not None and (certain or (whole and in_time)) and self._store(log_writer.end_output):
                break
            # What has ended by itself while nobody looked is not out of time, however late it is found.
            deadline = math.inf if ended is not None else self._deadline()
            try:
                why, stored = self._reread(container_id, log_writer, deadline)
            except ContainerGone as exc:
                if ended is None:
                    raise
                problems.append(f"the end of its log is missing: {_why_gone(exc)}")
                break
            ended_because = why or ended_because
            # Followed to the end that copy can lack its last piece; once the command has ended it is whole.
            certain = whole = stored and ended is not None
            if not stored and self._no_room_is_awaited() and ended is not None:
                break
        crashpoints.reached("command-ended")
        error = self._error(ended, ended_because)
        if error is not None:
            problems.insert(0, error)
        for problem in problems:
            _say(log_writer, problem)
        artifacts_key = None
        try:
            artifacts_key = self._keep_artifacts(container_id, log_writer)
        except (InfrastructureError, JobFailed, ContainerGone) as exc:
            reason = _why_gone(exc) if isinstance(exc, ContainerGone) else str(exc)
            problems.append(f"its artifacts could not be kept: {reason}")
            _say(log_writer, problems[-1])
        crashpoints.reached("artifacts-stored")
        error = "; ".join(problems) or None
        return Outcome(exit_code=ended.exit_code, error=error, artifacts_object_key=artifacts_key)

    def _keep_artifacts(self, container_id: str, log_writer: LogWriter) -> str | None:
        """Store what the command left; returns its key. An engine that goes away meanwhile is waited for."""
        if self.interrupt.reason is Reason.CANCELLED:
            # Nobody is shown any of a job that was cancelled.
            return None
        deadline = monotonic() + self._limits.collect_timeout_s
        tries = 0
        while True:
            try:
                return store_artifacts(
                    self._context,
                    self.job,
                    lambda: self._runner.artifacts(container_id),
                    log_writer,
                    most_bytes=self._limits.artifact_bytes,
                    most_files=self._limits.artifacts,
                    check=partial(self._check_collecting, deadline),
                )
            except EngineUnavailable as exc:
                tries += 1
                if tries == _ARTIFACTS_TRIES:
                    raise
                log.warning("trying again to read the artifacts: %s", exc, extra=self._extra())
                self.interrupt.pause(_ENGINE_RETRY_S)
                if self.interrupt.reason is Reason.STOPPING:
                    raise JobInterrupted("stopping") from exc
                self._patiently(self._runner.check)

    def _check_collecting(self, deadline: float) -> None:
        """Raise where artifacts are to be collected no longer."""
        reason = self.interrupt.reason
        if reason is Reason.STOPPING:
            # The next start collects them anew.
            raise JobInterrupted("stopping")
        if reason is Reason.CANCELLED:
            raise CollectingEnded("the job was cancelled")
        if monotonic() >= deadline:
            limit_s = self._limits.collect_timeout_s
            raise CollectingEnded(f"collecting them took longer than {limit_s:g} s (--collect-timeout)")

    def _no_room_is_awaited(self) -> bool:
        """Wait a while for the object store to take the log; tells whether to go without, for a cancel.

        Raises ``JobInterrupted`` when the service stops meanwhile.
        """
        self.interrupt.pause(_STORE_RETRY_S)
        if self.interrupt.reason is Reason.STOPPING:
            raise JobInterrupted("stopping")
        return self.interrupt.reason is Reason.CANCELLED

    def _error(self, ended: Exit, ended_because: str | None) -> str | None:
        if ended_because is not None:
            return ended_because
        if ended.exit_code == 0:
            return None
        if ended.oom_killed:
            return self._out_of_memory()
        if ended.exit_code == 127:
            return "exit code 127 (a command was not found, or the image has no /bin/sh)"
        return f"exit code {ended.exit_code}"

    def _out_of_memory(self) -> str:
        limit_bytes = self.job.definition.memory_limit_bytes
        limit = "" if limit_bytes is None else f" (limit {format_size(limit_bytes)})"
        return f"killed: out of memory{limit}"

    def _lost_container(self, exc: ContainerGone) -> str:
        """Return what is to be said of a container that went before its exit code was known."""
        if self._progress is Progress.HANDING_OVER:
            return f"{_why_gone(exc)} while the command was handed over, so whether that has run is not known"
        if isinstance(exc, ContainerRestarted):
            return f"{_why_gone(exc)}, so how the command ended is not known"
        if self._adopted is not None:
            return f"worker {self._adopted.worker_id} was lost while it ran, and its container is gone"
        return "the container was removed while the job ran"

    def _signal(self, container_id: str, signal: Signal) -> None:
        try:
            self._runner.signal(container_id, signal)
        except EngineUnavailable as exc:
            # Sent again once the grace is over, and once a second after that.
            log.warning("the container could not be told to stop: %s", exc, extra=self._extra())

    def _has_ended(self, container_id: str) -> bool:
        try:
            return self._runner.wait(container_id, 0.1, self._container_started_at) is not None
        except EngineUnavailable:
            return False

    def _patiently(self, call: Callable[[], T]) -> T:
        """Return what ``call`` returns, however long the engine, the database or the object store is away.

        Raises ``JobInterrupted`` when the service stops meanwhile.
        """
        while True:
            try:
                return call()
            except (EngineUnavailable, StoreError, ObjectStoreError) as exc:
                log.warning("waiting: %s", exc, extra=self._extra())
                if self.interrupt.reason is Reason.STOPPING:
                    raise JobInterrupted("stopping") from exc
                self.interrupt.pause(_ENGINE_RETRY_S)

    def _end(self, outcome: Outcome) -> None:
        """Write down how the attempt ended, then tell Corndogs, then clear up."""
        crashpoints.reached("log-closed")
        self._patiently(lambda: self._write_down(outcome))
        crashpoints.reached("finish-written")
        self._close_task()
        crashpoints.reached("task-closed")
        self._remove_container()
        crashpoints.reached("container-removed")
        # It may have been deleted meanwhile, and even be purged by now.
        with contextlib.suppress(NotFound):
            if self._context.store.jobs.get(self.job.job_id).deleted:
                purge_ended(self._context, self.job.job_id)

    def _write_down(self, outcome: Outcome) -> None:
        job = self.job
        has_run = self._progress is not Progress.PREPARING
        if outcome.error is None or not has_run or job.retries_used >= job.definition.retries:
            lifecycle.finish(self._context, job, outcome, log_truncated=self._log_truncated)
            return
        # What failed once mostly fails at once again, so a moment's rest; the log of each attempt is kept.
        lifecycle.try_again(
            self._context,
            job,
            outcome.error,
            delay_s=_RETRY_DELAY_S,
            exit_code=outcome.exit_code,
            log_truncated=self._log_truncated,
            retries_used=job.retries_used + 1,
        )
        crashpoints.reached("retry-written")

    def _end_interrupted(self) -> None:
        """End an attempt that was told to stop before its command had started."""
        if self.interrupt.reason is Reason.CANCELLED:
            self._end(Outcome(exit_code=None, error="cancelled"))
        elif self._progress is Progress.PREPARING:
            self._remove_container()
            reason = "the service stopped before the command had started"
            lifecycle.try_again(self._context, self.job, reason, delay_s=0)
            self._close_task()
        # Otherwise the container goes on by itself, and the next start takes it over: or finds that the
        # hand-over, which ended with this connection, was not whole.

    def _end_infrastructure(self, problem: InfrastructureError) -> None:
        """End an attempt that failed through a fault of ours: try again, as long as nothing has run."""
        job = self.job
        # Where that fails a sweep does it. Nothing runs in it, so another attempt need not wait for that.
        self._remove_container()
        has_run = self._progress is not Progress.PREPARING
        if self._adopted is None:
            failures, most = job.preparation_failures, MOST_PREPARATION_FAILURES
            delay_s = _FIRST_RETRY_DELAY_S * 2**failures
            counter = {"preparation_failures": failures + 1}
        else:
            # The end of the service mostly has other causes. But what it was preparing may be one.
            failures, most = job.killed_preparations, MOST_KILLED_PREPARATIONS
            delay_s = min(2.0**failures - 1, _LONGEST_KILLED_DELAY_S)
            counter = {"killed_preparations": failures + 1}
        if has_run or failures >= most:
            self._end(Outcome(exit_code=None, error=str(problem)))
            return
        log.warning("trying again in %g s: %s", delay_s, problem, extra=self._extra())
        lifecycle.try_again(
            self._context,
            job,
            str(problem),
            delay_s=delay_s,
            log_truncated=self._log_truncated,
            **counter,
        )
        self._close_task()

    def _close_task(self) -> None:
        with self.task_lock:
            self.task_closed = True
        with contextlib.suppress(NotFound):
            lifecycle.close_task(self._context, self._context.store.jobs.get(self.job.job_id))

    def _remove_container(self) -> None:
        if self._container_id is None:
            return
        try:
            self._runner.remove(self._container_id)
        except (EngineUnavailable, JobFailed) as exc:
            log.warning("its container is still there: %s", exc, extra=self._extra())

    def _extra(self) -> dict[str, object]:
        return {"job_id": self.job.job_id, "attempt": self.job.attempt}


def _progress_of(left: OpenAttempt) -> Progress:
    if left.started_at_ms is not None:
        return Progress.STARTED
    return Progress.PREPARING if left.handing_over_at_ms is None else Progress.HANDING_OVER


def _not_acknowledged(said: bytes) -> str:
    return f"its container did not acknowledge the command{_quoted(said)}"


def _quoted(said: bytes) -> str:
    """Return what was said instead of an acknowledgement, as the end of a sentence."""
    words = " ".join(said.decode(errors="replace").split())[:500]
    return f", but said: {words}" if words else ""


def _why_gone(exc: ContainerGone) -> str:
    if isinstance(exc, ContainerRestarted):
        return "its container was started again (docker restart, or a restart policy that somebody gave it)"
    return "somebody removed its container"


def _say(log_writer: LogWriter, sentence: str) -> None:
    """Add a line to the log; where the log itself is the trouble, the attempt's row tells."""
    with contextlib.suppress(ObjectStoreError):
        log_writer.say(sentence)


def _service_env(job: Job) -> dict[str, str]:
    """Return the variables that every job gets."""
    definition = job.definition
    return {
        "CI": "true",
        "REACTORCIDE": "true",
        "REACTORCIDE_JOB_ID": job.job_id,
        "REACTORCIDE_JOB_NAME": definition.name,
        "REACTORCIDE_QUEUE": definition.queue_name,
        "REACTORCIDE_ATTEMPT": str(job.attempt),
        "REACTORCIDE_CODE_DIR": definition.code_dir,
        "REACTORCIDE_ARTIFACTS_DIR": ARTIFACTS_DIR,
    }
