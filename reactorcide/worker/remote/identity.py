"""What a worker on another machine remembers: its secret, and its attempts. Only its user can read it."""

import json
import logging
import os
import secrets
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reactorcide.domain.errors import ConfigurationError, InfrastructureError
from reactorcide.lib.records import record

log = logging.getLogger("reactorcide.worker")

_PROBE_BYTES = 1 << 14


@record
class Identity:
    """The worker's secret, and the registration that it was sent with."""

    server: str
    registration_sha256: str
    secret: str
    is_registered: bool = False


class WorkerFiles:
    """The files of a worker below ``base``. Thread-safe.

    Nothing that runs depends on their being written: a failure is the worker's trouble, and as long as it
    lasts no jobs are taken.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._identity_path = base / "worker.json"
        self._attempts_dir = base / "attempts"
        self.problem: str | None = None
        """Why nothing can be written at the moment."""

    @property
    def logs_dir(self) -> Path:
        """Logs that the service does not have yet."""
        return self._base / "logs"

    def identity(self) -> Identity | None:
        """Return who this worker is; ``None`` before its first start. Raises ``ConfigurationError``."""
        try:
            data = json.loads(self._identity_path.read_text("utf-8"))
            return Identity(**data)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as exc:
            raise ConfigurationError(
                f"{self._identity_path} cannot be used: {exc}; remove it, and register this worker again "
                "with a new token: reactorcide workers add"
            ) from exc

    def save_identity(self, identity: Identity) -> None:
        """Store who this worker is; raises ``InfrastructureError``."""
        try:
            self._base.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._write(self._identity_path, json.dumps(asdict(identity)))
        except OSError as exc:
            raise InfrastructureError(f"{self._identity_path} cannot be written: {exc.strerror}") from exc

    def save_attempt(self, key: tuple[str, int], data: dict[str, Any]) -> None:
        """Store an attempt, with all that ending it needs while the service is away."""
        path, text = self._attempt_path(key), json.dumps(data)
        try:
            try:
                self._write(path, text)
            except OSError as exc:
                self.failed(exc)
                # On a full disk a file can still be written over. An old time must not stay in it.
                self._write_over(path, text)
        except OSError as exc:
            self.failed(exc)

    def failed(self, problem: OSError) -> None:
        """Record that a file could not be written."""
        if self.problem is None:
            self._found(self._gone() or self._not_written(problem))

    def look(self) -> None:
        """Look whether the directory is still there, and whether it can be written again after a failure."""
        gone = self._gone()
        if gone is not None:
            self._found(gone)
        elif self.problem is not None:
            try:
                self._write(self._base / "probe", "0" * _PROBE_BYTES)
                (self._base / "probe").unlink(missing_ok=True)
            except OSError as exc:
                self._found(self._not_written(exc))
                return
            self.problem = None
            log.info("the worker's data directory %s can be written again", self._base)

    def check(self) -> None:
        """Raise ``InfrastructureError`` if no job should be taken, because nothing can be written."""
        self.look()
        problem = self.problem
        if problem is not None:
            raise InfrastructureError(problem)

    def _gone(self) -> str | None:
        try:
            self._identity_path.stat()
        except OSError as exc:
            return (
                f"the worker's data directory {self._base} is gone ({self._identity_path.name}: "
                f"{exc.strerror}); put it back, or start this worker anew with a token from 'reactorcide "
                "workers add': it takes no jobs before that"
            )
        return None

    def _not_written(self, problem: OSError) -> str:
        return (
            f"the worker's disk cannot be written to ({self._base}: {problem.strerror}); make room there: "
            "the worker takes no jobs before it can be"
        )

    def _found(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            log.warning("%s", problem)

    def attempts(self) -> list[dict[str, Any]]:
        """Return the stored attempts; a damaged file is left out, and logged."""
        found = []
        with suppress(FileNotFoundError):
            for path in sorted(self._attempts_dir.glob("*.json")):
                try:
                    found.append(json.loads(path.read_text("utf-8")))
                except (OSError, ValueError) as exc:
                    log.warning("%s is left out: %s", path, exc)
        return found

    def forget_attempt(self, key: tuple[str, int]) -> None:
        """Remove an attempt; safe to repeat."""
        try:
            self._attempt_path(key).unlink(missing_ok=True)
        except OSError as exc:
            log.warning("%s is not removed: %s", self._attempt_path(key), exc)

    def keep_only(self, keys: Collection[tuple[str, int]]) -> None:
        """Remove the files of all attempts but these."""
        kept = {f"{job_id}.{attempt}" for job_id, attempt in keys}
        for directory in (self._attempts_dir, self.logs_dir):
            for path in directory.glob("*") if directory.is_dir() else ():
                if ".".join(path.name.split(".")[:2]) not in kept:
                    try:
                        path.unlink(missing_ok=True)
                    except OSError as exc:
                        log.warning("%s is not removed: %s", path, exc)

    def _attempt_path(self, key: tuple[str, int]) -> Path:
        return self._attempts_dir / f"{key[0]}.{key[1]}.json"

    def _write(self, path: Path, text: str) -> None:
        if path.parent != self._base:
            # Not its parents: a data directory that is gone is not to come back without the secret.
            path.parent.mkdir(exist_ok=True, mode=0o700)
        temporary = path.with_name(f"{path.name}.tmp")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def _write_over(self, path: Path, text: str) -> None:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_NOFOLLOW), "wb", buffering=0) as file:
            old_bytes = os.fstat(file.fileno()).st_size
            # White space after the JSON instead of what is left of the old one.
            file.write(text.encode().ljust(old_bytes))


def new_secret() -> str:
    """Return the secret of a worker: 256 random bits."""
    return f"rcs_{secrets.token_hex(32)}"
