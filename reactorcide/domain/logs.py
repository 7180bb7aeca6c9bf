"""The files of logs: their names, and how far one that grows in the job database has come."""

import re
from typing import NamedTuple

from reactorcide.domain.errors import InvalidInput
from reactorcide.lib.records import record

_KEY = re.compile(r"jobs/([\w-]{1,128})/(\d{1,9})/(log(?:\.idx)?)", re.ASCII)
_PREFIX = re.compile(r"(?:jobs/(?:([\w-]{1,128})/(?:(\d{1,9})/)?)?)?", re.ASCII)


class LogName(NamedTuple):
    """A file of a log: its job, its attempt, and ``log`` or ``log.idx``."""

    job_id: str
    attempt: int
    name: str

    @property
    def key(self) -> str:
        """Return the key of the file, as ``domain.jobs.log_key`` and ``log_index_key`` do."""
        return f"jobs/{self.job_id}/{self.attempt}/{self.name}"

    @property
    def file_name(self) -> str:
        """Return the name of the file in a directory of growing logs."""
        return f"{self.job_id}.{self.attempt}.{self.name}"


@record
class GrowingLog:
    """A file of a log that is not sealed."""

    writer: str
    """Who may write to it: each who opens it takes it from the one before."""
    base_bytes: int
    """How many of its first bytes are in the object under its key: it was sealed before, and reopened."""
    size_bytes: int


def parse_log_key(key: str) -> LogName:
    """Return the parts of the key of a log; raises ``InvalidInput`` if it is none."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise InvalidInput(f"{key!r} is not the key of a log")
    return LogName(match[1], int(match[2]), match[3])


def parse_log_prefix(prefix: str) -> tuple[str | None, int | None]:
    """Return the job and the attempt of a prefix, ``None`` for all; raises ``InvalidInput``."""
    match = _PREFIX.fullmatch(prefix)
    if match is None:
        raise InvalidInput(f"{prefix!r} is the prefix of no logs")
    return match[1], None if match[2] is None else int(match[2])
