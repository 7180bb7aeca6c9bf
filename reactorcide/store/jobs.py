"""Queries on jobs, their attempts and their status changes.

Every status change is one conditional UPDATE: the WHERE clause is the guard, and zero rows mean that the
change did not happen. A trigger of the schema writes the ``job_event`` row beside it.
"""

import base64
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import peewee
from peewee import fn

from reactorcide.domain.audit import Actor, Deed
from reactorcide.domain.errors import ConfigurationError, IllegalTransition, KeyTaken, NotFound, StoreError
from reactorcide.domain.jobs import (
    ACTIVE,
    FINAL,
    WAITING,
    AttemptRecord,
    EndedJob,
    Job,
    JobDefinition,
    JobEvent,
    JobFilter,
    JobStatus,
    OpenAttempt,
    PulledImage,
    QueueFigures,
    RequestKey,
)
from reactorcide.domain.secrets import REDACTED, guess, redacted_url, secret_variables
from reactorcide.store import audit
from reactorcide.store.database import Database
from reactorcide.store.models import (
    AttemptRow,
    IdempotencyRow,
    InstanceRow,
    JobEventRow,
    JobRow,
    PulledImageRow,
)
from reactorcide.store.vault import Vault

_DEFINITION_FIELDS = tuple(item.name for item in fields(JobDefinition))
_NO_COLUMNS = ("definition", "status", "is_cut")
_JOB_FIELDS = tuple(item.name for item in fields(Job) if item.name not in _NO_COLUMNS)


_EVENTS_OF = "events of "
"""Before the id of a user: no id of a job begins like this."""
_KEY_IS_KEPT_MS = 86_400_000
_SWEEP_CHARS = 1000
"""Of each text of a job that is only to be handed on, closed or removed; its definition takes megabytes."""
_LONGEST_DELAY_MS = 120_000
"""No submission is ever put off for longer."""

# What every job goes through is written as SQL: building these statements anew each time takes peewee
# several times as long as SQLite takes to run them.
_COLUMNS = tuple(JobRow._meta.columns)
_JSON_COLUMNS = ("job_env_vars", "secret_env_vars", "artifacts")
_COLUMN_LIST = ", ".join(_COLUMNS)
_TEXT_COLUMNS = (
    "name",
    "description",
    "job_command",
    "git_url",
    "git_ref",
    "source_path",
    "runner_image",
    "code_dir",
    "job_dir",
    "error",
)
"""Those that a client or a job may make long."""
_SELECT_JOB = f"SELECT {_COLUMN_LIST} FROM job WHERE job_id = ?"  # noqa: S608  # names of ours only
_UPDATE_SEALED = (
    "UPDATE job SET job_env_vars = ?, git_url = ?, secret_env_vars = ?, secrets = ? WHERE job_id = ?"
)
_SELECT_STATUS = "SELECT status FROM job WHERE job_id = ?"
_INSERT_JOB = f"INSERT INTO job ({_COLUMN_LIST}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608  # as above

_BEGIN_HAND_OVER = (
    "UPDATE attempt SET container_id = ?, container_started_at = ?, handing_over_at_ms = ?, log_offset = ? "
    "WHERE job_id = ? AND attempt = ? AND completed_at_ms IS NULL RETURNING attempt"
)

# A job has a time of completion when it is over, and not before. All of the first line is in the index
# `job_removable`, so that a decision over very many jobs reads nothing else of them.
_REMOVABLE = (
    "completed_at_ms IS NOT NULL AND NOT deleted AND NOT pinned AND NOT task_open "
    "AND NOT EXISTS "
    "(SELECT 1 FROM attempt WHERE attempt.job_id = job.job_id AND attempt.completed_at_ms IS NULL) "
    "AND NOT EXISTS "
    "(SELECT 1 FROM job AS next WHERE next.source_job_id = job.job_id AND next.completed_at_ms IS NULL)"
)
_REMOVABLE_JOBS = (
    f"SELECT job_id, completed_at_ms, stored_bytes FROM job WHERE {_REMOVABLE} "  # noqa: S608  # our own text
    "ORDER BY completed_at_ms DESC, job_id DESC"
)
_UNMEASURED = f"SELECT job_id FROM job WHERE {_REMOVABLE} AND stored_bytes IS NULL LIMIT ?"  # noqa: S608  # as above
_RETIRE = f"UPDATE job SET deleted = 1, updated_at_ms = ? WHERE job_id = ? AND {_REMOVABLE} RETURNING job_id"  # noqa: S608  # as above
# A clock that was put back must not make anybody wait for as long.
_QUEUED_LONG = """
    SELECT job_id FROM job
    WHERE status = ? AND (queued_at_ms < ? OR queued_at_ms > ?) AND job_id > ?
    ORDER BY job_id LIMIT ?
    """
_PIN = f"UPDATE job SET pinned = ? WHERE job_id = ? AND NOT deleted RETURNING {_COLUMN_LIST}"  # noqa: S608  # as above


def _as_dict(row: Sequence[Any]) -> dict[str, Any]:
    """Return a row of ``_COLUMNS`` as peewee's ``dicts()`` would."""
    values = dict(zip(_COLUMNS, row, strict=True))
    for name in _JSON_COLUMNS:
        values[name] = JobRow._meta.fields[name].python_value(values[name])
    values["deleted"] = bool(values["deleted"])
    values["log_truncated"] = bool(values["log_truncated"])
    values["pinned"] = bool(values["pinned"])
    values["git_submodules"] = bool(values["git_submodules"])
    values["git_tags"] = bool(values["git_tags"])
    return values


def _update_status(
    job_id: str,
    target: JobStatus,
    now_ms: int,
    only_from: Collection[JobStatus],
    changes: Mapping[str, object],
    *,
    attempt: int | None = None,
    task_id: str | None = None,
) -> tuple[str, tuple[object, ...]]:
    """Return the statement, with its values, that moves a job to ``target`` and returns its row."""
    assignments = "".join(f", {name} = ?" for name in changes)
    guard = ", ".join("?" * len(only_from))
    values = (target, now_ms, *changes.values(), job_id, *sorted(only_from))
    sql = (
        f"UPDATE job SET status = ?, updated_at_ms = ?{assignments}"  # noqa: S608  # names of ours only
        f" WHERE job_id = ? AND status IN ({guard})"
    )
    if attempt is not None:
        sql, values = sql + " AND attempt = ?", (*values, attempt)
    if task_id is not None:
        sql, values = sql + " AND corndogs_task_id = ?", (*values, task_id)
    return f"{sql} RETURNING {_COLUMN_LIST}", values


def _cut_columns(most_chars: int) -> list[Any]:
    """Return what to select of a job for a list: SQLite cuts, so that no more than that is ever in memory."""
    columns: list[Any] = []
    is_cut: Any = None
    for name, column in JobRow._meta.columns.items():
        if name == "secrets":
            continue
        if name in _TEXT_COLUMNS:
            columns.append(fn.substr(column, 1, most_chars).alias(name))
        elif name in _JSON_COLUMNS:
            columns.append(peewee.Case(None, [(fn.length(column) <= most_chars, column)]).alias(name))
        else:
            columns.append(column)
            continue
        is_long = fn.coalesce(fn.length(column), 0) > most_chars
        is_cut = is_long if is_cut is None else is_cut | is_long
    return [*columns, is_cut.alias("is_cut")]


class JobStore:
    """Jobs in the database. Thread-safe; every method is one transaction, durable on return.

    All methods raise ``StoreError`` where the database does not do its work.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._vault = Vault(database.path.with_name("secret-key"))

    # --- secrets -------------------------------------------------------------------------------

    def open_vault(self) -> None:
        """Read the key that encrypts what is secret; the first call ever makes it. Safe to repeat.

        It then also encrypts what an earlier version has stored in plain text. Comes before any job is added
        or read, on a database with an instance id. Raises ``ConfigurationError`` where the key is missing or
        is another one, although something is encrypted.
        """
        with self._database.read() as db:
            known = db.execute_sql("SELECT secret_key_sha256 FROM instance").fetchone()[0]
        if not self._vault.load():
            self._may_change_key(known, "is missing")
            self._vault.make()
        if known == self._vault.fingerprint:
            return
        self._may_change_key(known, "is another one")
        if known is None:
            self._encrypt_plain()
        with self._database.write() as db:
            InstanceRow.update(secret_key_sha256=self._vault.fingerprint).execute(db)

    def _may_change_key(self, known: bytes | None, trouble: str) -> None:
        if known is None:
            return
        with self._database.read() as db:
            used = db.execute_sql("SELECT EXISTS (SELECT 1 FROM job WHERE secrets IS NOT NULL)").fetchone()[0]
        if used:
            raise ConfigurationError(
                f"the key {self._vault.path} {trouble}, and {self._database.path} has secrets of jobs "
                "encrypted with it; put it back from a backup, or choose another directory with --data-dir"
            )

    def _encrypt_plain(self) -> None:
        """Encrypt the secrets of jobs that are in plain text, and leave no copy of them in the file."""
        with self._database.write() as db:
            rows = db.execute_sql("SELECT job_id, job_env_vars, git_url, secrets FROM job").fetchall()
            for job_id, stored, git_url, secrets in rows:
                # A start that was cut off has come to this one.
                if secrets is not None:
                    continue
                variables = json.loads(stored)
                sealed = self._sealed(job_id, variables, guess(variables), git_url)
                if sealed["secrets"] is not None:
                    db.execute_sql(_UPDATE_SEALED, (*sealed.values(), job_id))
        if rows:
            self._database.shrink()

    def _sealed(
        self, job_id: str, variables: Mapping[str, str], names: Sequence[str], git_url: str | None
    ) -> dict[str, object]:
        """Return the columns of a job's row in which there can be secrets, these encrypted."""
        hidden = secret_variables(variables, names)
        shown_url = None if git_url is None else redacted_url(git_url)
        encrypted = None
        if hidden or shown_url != git_url:
            text = json.dumps({"job_env_vars": hidden, "git_url": git_url})
            encrypted = self._vault.encrypt(text, job_id)
            variables = {**variables, **dict.fromkeys(hidden, REDACTED)}
        return {
            "job_env_vars": JobRow.job_env_vars.db_value(variables),
            "git_url": shown_url,
            "secret_env_vars": JobRow.secret_env_vars.db_value(names or None),
            "secrets": encrypted,
        }

    def _cut_job(self, row: dict[str, Any]) -> Job:
        """Return a job from a row of ``_cut_columns``."""
        row["job_env_vars"] = row["job_env_vars"] or {}
        # What is hidden is written as hidden in the other columns.
        row["secrets"] = None
        is_cut = bool(row.pop("is_cut"))
        return replace(self._job(row), is_cut=is_cut)

    def _job(self, row: dict[str, Any]) -> Job:
        if row["secrets"] is not None:
            opened = json.loads(self._vault.decrypt(bytes(row["secrets"]), row["job_id"]))
            row["job_env_vars"] |= opened["job_env_vars"]
            row["git_url"] = opened["git_url"]
        row["secret_env_vars"] = tuple(row["secret_env_vars"] or ())
        return Job(
            definition=JobDefinition(**{name: row[name] for name in _DEFINITION_FIELDS}),
            status=JobStatus(row["status"]),
            **{name: row[name] for name in _JOB_FIELDS},
        )

    # --- writing -------------------------------------------------------------------------------

    def add(
        self, job: Job, *, next_submit_at_ms: int, by: Actor | None = None, key: RequestKey | None = None
    ) -> None:
        """Insert a new job. It is to be submitted again if Corndogs has not got it by then.

        ``by`` is for the audit, which a trigger writes. Raises ``KeyTaken`` where the user has made
        another job with the ``key``; keys are forgotten in time.
        """
        by = by or Actor(user_id=job.user_id)
        row = {name: getattr(job.definition, name) for name in _DEFINITION_FIELDS}
        row |= {name: getattr(job, name) for name in _JOB_FIELDS}
        row |= self._sealed(job.job_id, row["job_env_vars"], row["secret_env_vars"], row["git_url"])
        row |= {
            "artifacts": JobRow.artifacts.db_value(row["artifacts"]),
            "status": job.status,
            "next_submit_at_ms": next_submit_at_ms,
            "submit_failures": 0,
            "task_open": False,
            "stored_bytes": None,
            "token_id": by.token_id,
            "address": by.address,
            "request_id": by.request_id,
        }
        values = [row[name] for name in _COLUMNS]
        if key is None:
            self._database.write_one(_INSERT_JOB, values)
            return
        with self._database.write() as db:
            IdempotencyRow.delete().where(
                IdempotencyRow.created_at_ms < job.created_at_ms - _KEY_IS_KEPT_MS
            ).execute(db)
            try:
                IdempotencyRow.insert(
                    user_id=job.user_id,
                    key=key.key,
                    body_mac=self._vault.mac(key.body_sha256),
                    job_id=job.job_id,
                    created_at_ms=job.created_at_ms,
                ).execute(db)
            except peewee.IntegrityError as exc:
                raise KeyTaken("another job was submitted with this Idempotency-Key") from exc
            db.execute_sql(_INSERT_JOB, values)

    def transition(
        self,
        job_id: str,
        target: JobStatus,
        *,
        now_ms: int,
        only_from: Collection[JobStatus],
        deed: Deed | None = None,
        **changes: object,
    ) -> Job:
        """Move a job to ``target`` if its status is in ``only_from``.

        ``deed`` is for the audit, ``changes`` are further columns of the row. Returns the job as it is
        afterwards; raises ``IllegalTransition`` if the guard did not match, and then nothing has changed.
        """
        statement = _update_status(job_id, target, now_ms, only_from, changes)
        if deed is None:
            return self._moved(self._database.write_one(*statement), job_id, target)
        with self._database.write() as db:
            job = self._moved(db.execute_sql(*statement).fetchall(), job_id, target)
            audit.record(db, deed)
            return job

    def claim(self, job_id: str, task_id: str, worker_id: str, *, now_ms: int, log_key: str) -> Job:
        """Make a waiting job ``running`` and open its attempt: the fence that decides who runs it.

        Raises ``IllegalTransition`` if the job does not wait.
        """
        with self._database.write() as db:
            changes = {
                "worker_id": worker_id,
                "corndogs_task_id": task_id,
                "task_open": True,
                "logs_object_key": log_key,
                "log_truncated": False,
                "error": None,
            }
            statement = _update_status(job_id, JobStatus.RUNNING, now_ms, WAITING, changes)
            job = self._moved(db.execute_sql(*statement).fetchall(), job_id, JobStatus.RUNNING)
            AttemptRow.insert(
                job_id=job_id,
                attempt=job.attempt,
                worker_id=worker_id,
                claimed_at_ms=now_ms,
                heartbeat_at_ms=now_ms,
                log_offset=0,
            ).execute(db)
            return job

    def begin_hand_over(
        self,
        job_id: str,
        attempt: int,
        container_id: str,
        *,
        container_started_at: str,
        now_ms: int,
        log_offset: int,
    ) -> None:
        """Record that an attempt's command is about to be handed over to its container.

        ``log_offset`` is where the container's output begins in the log. Raises ``IllegalTransition`` if the
        attempt has ended: then somebody else has judged it, and its command must not run.
        """
        values = (container_id, container_started_at, now_ms, log_offset, job_id, attempt)
        if not self._database.write_one(_BEGIN_HAND_OVER, values):
            raise IllegalTransition(f"attempt {attempt} of job {job_id} has ended, so its command is not run")

    def start_attempt(self, job_id: str, attempt: int, *, now_ms: int) -> None:
        """Record that the command of an attempt runs."""
        with self._database.write() as db:
            AttemptRow.update(started_at_ms=now_ms).where(
                (AttemptRow.job_id == job_id) & (AttemptRow.attempt == attempt)
            ).execute(db)
            JobRow.update(started_at_ms=now_ms, updated_at_ms=now_ms).where(
                (JobRow.job_id == job_id) & (JobRow.attempt == attempt) & (JobRow.status == JobStatus.RUNNING)
            ).execute(db)

    def end_attempt(
        self,
        job_id: str,
        attempt: int,
        target: JobStatus,
        *,
        now_ms: int,
        exit_code: int | None,
        error: str | None,
        log_truncated: bool = False,
        job_changes: Mapping[str, object],
    ) -> Job | None:
        """Close an attempt and move its job from ``running`` to ``target``, in one transaction.

        Where the job has been cancelled meanwhile only the attempt is closed, and ``None`` is returned.
        An attempt that is closed already stays as it is: repeating is harmless.
        """
        with self._database.write() as db:
            AttemptRow.update(
                completed_at_ms=now_ms, exit_code=exit_code, error=error, log_truncated=log_truncated
            ).where(
                (AttemptRow.job_id == job_id)
                & (AttemptRow.attempt == attempt)
                & AttemptRow.completed_at_ms.is_null()
            ).execute(db)
            if log_truncated:
                # Not with the status, which a cancel may have made final already.
                JobRow.update(log_truncated=True).where(
                    (JobRow.job_id == job_id) & (JobRow.attempt == attempt)
                ).execute(db)
            statement = _update_status(
                job_id, target, now_ms, {JobStatus.RUNNING}, job_changes, attempt=attempt
            )
            rows = db.execute_sql(*statement).fetchall()
            return self._job(_as_dict(rows[0])) if rows else None

    def heartbeat(self, attempts: Iterable[tuple[str, int]], *, now_ms: int) -> None:
        """Stamp the attempts that a worker holds."""
        with self._database.write() as db:
            for job_id, attempt in attempts:
                AttemptRow.update(heartbeat_at_ms=now_ms).where(
                    (AttemptRow.job_id == job_id) & (AttemptRow.attempt == attempt)
                ).execute(db)

    def task_closed(self, job_id: str, task_id: str) -> None:
        """Record that Corndogs has no live task of the job any more."""
        with self._database.write() as db:
            JobRow.update(task_open=False).where(
                (JobRow.job_id == job_id) & (JobRow.corndogs_task_id == task_id)
            ).execute(db)

    def submit_interrupted(self) -> None:
        """Make jobs due at once whose submission was under way when the service ended.

        Only for the start of a service: while one runs, that is what its submitters are doing.
        """
        with self._database.write() as db:
            JobRow.update(next_submit_at_ms=0).where(
                (JobRow.status == JobStatus.SUBMITTED) & (JobRow.attempt == 1)
            ).execute(db)

    def forget_task(self, job_id: str, task_id: str, reason: str, *, now_ms: int) -> Job | None:
        """Have a queued job submitted anew because Corndogs has lost its task.

        ``None`` where the job is not queued under that task any more; then nothing has changed.
        """
        changes = {
            "corndogs_task_id": None,
            "task_open": False,
            "queued_at_ms": None,
            "next_submit_at_ms": 0,
            "error": reason,
        }
        statement, values = _update_status(
            job_id, JobStatus.SUBMITTED, now_ms, {JobStatus.QUEUED}, changes, task_id=task_id
        )
        rows = self._database.write_one(statement, values)
        return self._job(_as_dict(rows[0])) if rows else None

    def forget_tasks(self, *, now_ms: int) -> None:
        """Have every job that waits submitted anew: the queue that has its task is not there any more."""
        with self._database.write() as db:
            JobRow.update(
                status=JobStatus.SUBMITTED,
                corndogs_task_id=None,
                task_open=False,
                next_submit_at_ms=0,
                updated_at_ms=now_ms,
            ).where(JobRow.status == JobStatus.QUEUED).execute(db)

    def mark_deleted(self, job_id: str, *, now_ms: int, deed: Deed | None = None) -> None:
        """Leave a tombstone: clients do not see the job any more. ``deed`` is for the audit."""
        with self._database.write() as db:
            JobRow.update(deleted=True, updated_at_ms=now_ms).where(JobRow.job_id == job_id).execute(db)
            if deed is not None:
                audit.record(db, deed)

    def retire(self, job_id: str, *, now_ms: int, deed: Deed | None = None) -> bool:
        """Leave a tombstone of a job that may be removed; tells whether it might, and so is gone.

        ``deed`` is for the audit.
        """
        with self._database.write() as db:
            is_gone = bool(db.execute_sql(_RETIRE, (now_ms, job_id)).fetchall())
            if is_gone and deed is not None:
                audit.record(db, deed)
            return is_gone

    def pin(self, job_id: str, pinned: bool, *, deed: Deed | None = None) -> Job:
        """Pin a job, or take its pin away; returns it. ``deed`` is for the audit. Raises ``NotFound``."""
        with self._database.write() as db:
            for row in db.execute_sql(_PIN, (pinned, job_id)).fetchall():
                if deed is not None:
                    audit.record(db, deed)
                return self._job(_as_dict(row))
        raise NotFound(f"there is no job {job_id}")

    def save_stored_bytes(self, sizes_bytes: Mapping[str, int]) -> None:
        """Write down what each job's logs and artifacts take."""
        with self._database.write() as db:
            for job_id, size_bytes in sizes_bytes.items():
                db.execute_sql("UPDATE job SET stored_bytes = ? WHERE job_id = ?", (size_bytes, job_id))

    def image_pulled(self, image: str, image_id: str, *, now_ms: int) -> None:
        """Remember that we have fetched an image, named with its tag, for a job that is about to use it."""
        with self._database.write() as db:
            PulledImageRow.insert(
                image=image, image_id=image_id, pulled_at_ms=now_ms, last_used_at_ms=now_ms
            ).on_conflict_replace().execute(db)

    def forget_image(self, found: PulledImage) -> None:
        """Forget an image, unless it was fetched anew or used meanwhile."""
        with self._database.write() as db:
            PulledImageRow.delete().where(
                (PulledImageRow.image == found.image)
                & (PulledImageRow.last_used_at_ms == found.last_used_at_ms)
            ).execute(db)

    def purge(self, job_id: str) -> None:
        """Remove every row of a deleted job."""
        with self._database.write() as db:
            AttemptRow.delete().where(AttemptRow.job_id == job_id).execute(db)
            JobEventRow.delete().where(JobEventRow.job_id == job_id).execute(db)
            JobRow.delete().where((JobRow.job_id == job_id) & JobRow.deleted).execute(db)

    # --- reading -------------------------------------------------------------------------------

    def get(self, job_id: str) -> Job:
        """Return a job, tombstones included; raises ``NotFound``."""
        with self._database.read() as db:
            for row in db.execute_sql(_SELECT_JOB, (job_id,)):
                return self._job(_as_dict(row))
        raise NotFound(f"there is no job {job_id}")

    def of_key(self, user_id: str, key: RequestKey, *, now_ms: int) -> tuple[str, bool] | None:
        """Return the id of the job that a user's idempotency key has made, and whether of the same body."""
        with self._database.read() as db:
            for job_id, body_mac in (
                IdempotencyRow.select(IdempotencyRow.job_id, IdempotencyRow.body_mac)
                .where(
                    (IdempotencyRow.user_id == user_id)
                    & (IdempotencyRow.key == key.key)
                    & (IdempotencyRow.created_at_ms >= now_ms - _KEY_IS_KEPT_MS)
                )
                .tuples()
                .execute(db)
            ):
                return job_id, bytes(body_mac) == self._vault.mac(key.body_sha256)
        return None

    def page(
        self,
        wanted: JobFilter,
        *,
        limit: int,
        offset: int = 0,
        after: tuple[int, str] | None = None,
        most_chars: int | None = None,
    ) -> tuple[list[Job], int]:
        """Return a page of jobs, newest first, and how many match in all.

        ``after`` is (created_at_ms, job_id) of the last job of the page before. With ``most_chars`` no text
        of a job is longer, and there is no secret in it; collections that take more as JSON are left out.
        """
        where = ~JobRow.deleted
        if wanted.user_id is not None:
            where &= JobRow.user_id == wanted.user_id
        if wanted.statuses:
            where &= JobRow.status.in_(list(wanted.statuses))
        if wanted.queue_name is not None:
            where &= JobRow.queue_name == wanted.queue_name
        if wanted.source_type is not None:
            where &= JobRow.source_type == wanted.source_type
        if wanted.name_prefix:
            where &= fn.substr(JobRow.name, 1, len(wanted.name_prefix)) == wanted.name_prefix
        if wanted.pinned is not None:
            where &= JobRow.pinned == wanted.pinned
        page = where
        if after is not None:
            created_at_ms, job_id = after
            page &= (JobRow.created_at_ms < created_at_ms) | (
                (JobRow.created_at_ms == created_at_ms) & (JobRow.job_id < job_id)
            )
        with self._database.read() as db:
            total = JobRow.select(fn.COUNT()).where(where).tuples().execute(db)[0][0]
            rows = (
                JobRow.select(*(() if most_chars is None else _cut_columns(most_chars)))
                .where(page)
                .order_by(JobRow.created_at_ms.desc(), JobRow.job_id.desc())
                .limit(limit)
                .offset(offset)
                .dicts()
                .execute(db)
            )
            if most_chars is not None:
                return [self._cut_job(row) for row in rows], int(total)
            return [self._job(row) for row in rows], int(total)

    def log_is_closed(self, job_id: str, attempt: int) -> bool:
        """Tell whether nothing will be added to an attempt's log any more."""
        with self._database.read() as db:
            for (completed_at_ms,) in (
                AttemptRow.select(AttemptRow.completed_at_ms)
                .where((AttemptRow.job_id == job_id) & (AttemptRow.attempt == attempt))
                .tuples()
                .execute(db)
            ):
                return completed_at_ms is not None
            for job_status, job_attempt in (
                JobRow.select(JobRow.status, JobRow.attempt)
                .where(JobRow.job_id == job_id)
                .tuples()
                .execute(db)
            ):
                # Not begun: it closes empty where the job is over, or is past this attempt.
                return JobStatus(job_status) in FINAL or job_attempt > attempt
        return True

    def queues_to_poll(self) -> Sequence[str]:
        """Return the queues with waiting jobs: highest priority first, then the oldest job of that one."""
        with self._database.read() as db:
            rows = (
                JobRow.select(JobRow.queue_name)
                .where(JobRow.status.in_(list(WAITING)))
                .group_by(JobRow.queue_name, JobRow.priority)
                .order_by(JobRow.priority.desc(), fn.MIN(JobRow.created_at_ms), JobRow.queue_name)
                .tuples()
                .execute(db)
            )
            # A queue is where its highest priority puts it: what it has of lower ones comes later.
            return list(dict.fromkeys(name for (name,) in rows))

    def active_queues(self) -> Sequence[str]:
        """Return the queues that have unfinished jobs."""
        with self._database.read() as db:
            rows = (
                JobRow.select(JobRow.queue_name)
                .where(JobRow.status.in_(list(ACTIVE)))
                .distinct()
                .tuples()
                .execute(db)
            )
            return [name for (name,) in rows]

    def to_submit(self, *, now_ms: int, limit: int = 100) -> list[tuple[Job, int]]:
        """Return waiting jobs that Corndogs should have got by now, with their failures in a row.

        Like all jobs that come by the hundred, they are cut as for a list.
        """
        with self._database.read() as db:
            rows = (
                JobRow.select(*_cut_columns(_SWEEP_CHARS))
                .where(
                    JobRow.status.in_([JobStatus.SUBMITTED, JobStatus.SUBMIT_FAILED])
                    & (
                        (JobRow.next_submit_at_ms <= now_ms)
                        # A clock that was put back must not make anybody wait for as long.
                        | (JobRow.next_submit_at_ms > now_ms + _LONGEST_DELAY_MS)
                    )
                )
                .order_by(JobRow.next_submit_at_ms)
                .limit(limit)
                .dicts()
                .execute(db)
            )
            return [(self._cut_job(row), row["submit_failures"]) for row in rows]

    def queued_long(self, *, before_ms: int, now_ms: int, after: str, limit: int) -> list[Job]:
        """Return jobs that were queued before a time, in order of their ids from the one ``after`` it."""
        with self._database.read() as db:
            # First the ids alone: the rows of all that wait may be large.
            found = db.execute_sql(_QUEUED_LONG, (JobStatus.QUEUED, before_ms, now_ms, after, limit))
            job_ids = [job_id for (job_id,) in found.fetchall()]
        return self._select(JobRow.job_id.in_(job_ids), limit, JobRow.job_id) if job_ids else []

    def to_close(self, *, after: str = "", limit: int = 100) -> list[Job]:
        """Return jobs that are over while Corndogs still has their task, by id from the one ``after`` it."""
        where = (JobRow.task_open == 1) & JobRow.status.in_(list(FINAL)) & (JobRow.job_id > after)
        return self._select(where, limit, JobRow.job_id)

    def to_purge(self, *, job_id: str | None = None, limit: int = 100) -> list[Job]:
        """Return deleted jobs (or that one) with no attempt left open and no task left in Corndogs."""
        still_open = AttemptRow.select(AttemptRow.job_id).where(
            (AttemptRow.job_id == JobRow.job_id) & AttemptRow.completed_at_ms.is_null()
        )
        where = (JobRow.deleted == 1) & ~JobRow.task_open & ~fn.EXISTS(still_open)
        if job_id is not None:
            where &= JobRow.job_id == job_id
        return self._select(where, limit)

    def removable(self) -> list[EndedJob]:
        """Return the jobs that are over, unpinned, and have nothing left open; the last to end first."""
        with self._database.read() as db:
            return [EndedJob(*row) for row in db.execute_sql(_REMOVABLE_JOBS)]

    def unmeasured(self, *, limit: int) -> list[str]:
        """Return some of those jobs whose logs and artifacts have not been measured."""
        with self._database.read() as db:
            return [job_id for (job_id,) in db.execute_sql(_UNMEASURED, (limit,))]

    def unused_images(self, *, since_ms: int) -> list[PulledImage]:
        """Return the images that we have fetched and no job has used since then."""
        with self._database.read() as db:
            rows = (
                PulledImageRow.select(
                    PulledImageRow.image, PulledImageRow.image_id, PulledImageRow.last_used_at_ms
                )
                .where(PulledImageRow.last_used_at_ms < since_ms)
                .tuples()
                .execute(db)
            )
            return [PulledImage(*row) for row in rows]

    def open_attempts(self) -> list[OpenAttempt]:
        """Return every attempt that has not ended."""
        with self._database.read() as db:
            rows = (
                JobRow.select(
                    JobRow,
                    AttemptRow.worker_id.alias("attempt_worker_id"),
                    AttemptRow.started_at_ms.alias("attempt_started_at_ms"),
                    AttemptRow.container_id,
                    AttemptRow.container_started_at,
                    AttemptRow.handing_over_at_ms,
                    AttemptRow.log_offset,
                )
                .join(
                    AttemptRow,
                    on=(AttemptRow.job_id == JobRow.job_id) & (AttemptRow.attempt == JobRow.attempt),
                )
                .where(AttemptRow.completed_at_ms.is_null())
                .dicts()
                .execute(db)
            )
            return [
                OpenAttempt(
                    job=self._job(row),
                    worker_id=row["attempt_worker_id"],
                    started_at_ms=row["attempt_started_at_ms"],
                    container_id=row["container_id"],
                    container_started_at=row["container_started_at"],
                    handing_over_at_ms=row["handing_over_at_ms"],
                    log_offset=row["log_offset"],
                )
                for row in rows
            ]

    def queue_figures(self, user_id: str | None, *, limit: int = 1000) -> list[QueueFigures]:
        """Return what the first queues by name with unfinished jobs hold, of one user or (``None``) all."""
        is_waiting = JobRow.status.in_(list(WAITING))
        where = JobRow.status.in_(list(ACTIVE)) & ~JobRow.deleted
        if user_id is not None:
            where &= JobRow.user_id == user_id
        with self._database.read() as db:
            rows = (
                JobRow.select(
                    JobRow.queue_name,
                    fn.SUM(is_waiting),
                    fn.SUM(~is_waiting),
                    fn.MIN(peewee.Case(None, [(is_waiting, JobRow.created_at_ms)])),
                )
                .where(where)
                .group_by(JobRow.queue_name)
                .order_by(JobRow.queue_name)
                .limit(limit)
                .tuples()
                .execute(db)
            )
            return [QueueFigures(*row) for row in rows]

    def counts(self) -> list[tuple[str, JobStatus, int]]:
        """Return (queue, status, number of jobs) of everything that is not deleted."""
        with self._database.read() as db:
            rows = (
                JobRow.select(JobRow.queue_name, JobRow.status, fn.COUNT())
                .where(~JobRow.deleted)
                .group_by(JobRow.queue_name, JobRow.status)
                .tuples()
                .execute(db)
            )
            return [(queue, JobStatus(status), count) for queue, status, count in rows]

    def attempts(self, job_id: str) -> list[AttemptRecord]:
        """Return every attempt of a job, the first one first."""
        names = [item.name for item in fields(AttemptRecord)]
        with self._database.read() as db:
            rows = (
                AttemptRow.select(*(getattr(AttemptRow, name) for name in names))
                .where(AttemptRow.job_id == job_id)
                .order_by(AttemptRow.attempt)
                .dicts()
                .execute(db)
            )
            return [AttemptRecord(**row) for row in rows]

    def last_event_id(self) -> int:
        """Return the id of the last status change so far, 0 where there is none."""
        with self._database.read() as db:
            for (event_id,) in db.execute_sql("SELECT MAX(id) FROM job_event"):
                return int(event_id or 0)
        return 0

    def seal_event_id(self, event_id: int, user_id: str) -> str:
        """Return an id of a status change as ``user_id`` may see it: it tells neither number nor order."""
        # All of one length, or that would tell how large the number is.
        sealed = self._vault.seal(f"{event_id:020}", _EVENTS_OF + user_id)
        return base64.urlsafe_b64encode(sealed).decode()

    def open_event_id(self, sealed: str, user_id: str) -> int | None:
        """Return the id that was sealed for ``user_id``; ``None`` for anything else."""
        try:
            return int(self._vault.decrypt(base64.urlsafe_b64decode(sealed), _EVENTS_OF + user_id))
        except (StoreError, ValueError):
            return None

    def events(self, user_id: str | None, *, after: int, limit: int = 100) -> list[JobEvent]:
        """Return the status changes after an id, in order, of one user's jobs or of all."""
        with self._database.read() as db:
            where = (JobEventRow.id > after) & ~JobRow.deleted
            if user_id is not None:
                where &= JobRow.user_id == user_id
            rows = (
                JobEventRow.select(
                    JobEventRow.id.alias("event_id"),
                    JobEventRow.job_id,
                    JobEventRow.status_from,
                    JobEventRow.status_to,
                    JobEventRow.attempt,
                    JobEventRow.reason,
                    JobEventRow.at_ms,
                    JobRow.name,
                    JobRow.queue_name,
                )
                .join(JobRow, on=(JobRow.job_id == JobEventRow.job_id))
                .where(where)
                .order_by(JobEventRow.id)
                .limit(limit)
                .dicts()
                .execute(db)
            )
            return [JobEvent(**row) for row in rows]

    def ahead_of(self, job: Job) -> int:
        """Return how many waiting jobs of its queue go before a waiting one."""
        priority, created_at_ms = job.definition.priority, job.created_at_ms
        with self._database.read() as db:
            rows = (
                JobRow.select(fn.COUNT())
                .where(
                    JobRow.status.in_(list(WAITING))
                    & (JobRow.queue_name == job.definition.queue_name)
                    & (
                        (JobRow.priority > priority)
                        | (
                            (JobRow.priority == priority)
                            & (
                                (JobRow.created_at_ms < created_at_ms)
                                | ((JobRow.created_at_ms == created_at_ms) & (JobRow.job_id < job.job_id))
                            )
                        )
                    )
                )
                .tuples()
                .execute(db)
            )
            return int(rows[0][0])

    def next_submit_at_ms(self, job_id: str) -> int:
        """Return when a job that Corndogs does not have is submitted again."""
        with self._database.read() as db:
            for (at_ms,) in db.execute_sql("SELECT next_submit_at_ms FROM job WHERE job_id = ?", (job_id,)):
                return int(at_ms)
        raise NotFound(f"there is no job {job_id}")

    def instance_id(self, proposed: str) -> str:
        """Return this installation's id; the first call ever makes it ``proposed``."""
        with self._database.write() as db:
            for (instance_id,) in InstanceRow.select(InstanceRow.instance_id).tuples().execute(db):
                return str(instance_id)
            InstanceRow.insert(instance_id=proposed).execute(db)
            return proposed

    # --- helpers -------------------------------------------------------------------------------

    def _select(self, where: Any, limit: int, order: Any = None) -> list[Job]:
        query = JobRow.select(*_cut_columns(_SWEEP_CHARS)).where(where).limit(limit)
        with self._database.read() as db:
            return [self._cut_job(row) for row in query.order_by(order).dicts().execute(db)]

    def _moved(self, rows: Sequence[Sequence[Any]], job_id: str, target: JobStatus) -> Job:
        """Return the job that an UPDATE of its status returned; raises ``IllegalTransition`` for none."""
        for row in rows:
            return self._job(_as_dict(row))
        with self._database.read() as db:
            found = db.execute_sql(_SELECT_STATUS, (job_id,)).fetchone()
        status = found[0] if found else "gone"
        raise IllegalTransition(f"job {job_id} is {status} and cannot become {target}")
