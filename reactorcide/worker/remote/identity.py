"""What a worker on another machine remembers: its secret, and its attempts. Only its user can read it."""

import json
import logging
import os
import secrets
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reactorcide.domain.errors import ConfigurationError, InfrastructureError

log = logging.getLogger("reactorcide.worker")


@dataclass(frozen=True, slots=True)
class Identity:
    """The worker's secret, and the registration that it was sent with."""

    server: str
    registration_sha256: str
    secret: str
    is_registered: bool = False


class WorkerFiles:
    """The files of a worker below ``base``. Raises ``InfrastructureError`` if they cannot be written."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._identity_path = base / "worker.json"
        self._attempts_dir = base / "attempts"

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
        """Store who this worker is."""
        self._write(self._identity_path, asdict(identity))

    def save_attempt(self, key: tuple[str, int], data: dict[str, Any]) -> None:
        """Store an attempt, with all that its adoption needs."""
        self._write(self._attempt_path(key), data)

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

    def _write(self, path: Path, data: dict[str, Any]) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = path.with_name(f"{path.name}.tmp")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(data, file)
            os.replace(temporary, path)
        except OSError as exc:
            raise InfrastructureError(f"{path} cannot be written: {exc.strerror}") from exc


def new_secret() -> str:
    """Return the secret of a worker: 256 random bits."""
    return f"rcs_{secrets.token_hex(32)}"
