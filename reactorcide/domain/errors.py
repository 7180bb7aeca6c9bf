"""All errors that the package raises on purpose.

Libraries' own errors are translated where the library is called (``raise … from exc``), so that
nothing above an adapter has to know which library sits below it. Each message is one sentence
that a person can act on: it is what the API answers and what a job's ``error`` field holds.
"""


class ReactorcideError(Exception):
    """Root of all errors raised on purpose; ``str()`` is a sentence for a person."""


class InvalidInput(ReactorcideError):
    """What the caller sent cannot be accepted; ``field`` names the part to blame, if one is."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class TooLarge(ReactorcideError):
    """What the caller sent is larger than the service takes."""


class Unauthorized(ReactorcideError):
    """The caller is not authenticated."""


class Forbidden(ReactorcideError):
    """The caller is authenticated, and not allowed to do this."""


class NotFound(ReactorcideError):
    """The requested item does not exist."""


class Conflict(ReactorcideError):
    """The state of the item does not allow this."""


class IllegalTransition(Conflict):
    """A guarded status change did not match: the job has another status."""


class AttemptStale(Conflict):
    """An attempt is no longer that of the worker that names it: it has ended, or its lease is another one."""


class SessionGone(Conflict):
    """A worker's session was replaced by a later one, or is not known."""


class LogConflict(Conflict):
    """A piece of a log does not follow what is stored, which has these ends."""

    def __init__(self, message: str, log_bytes: int, index_bytes: int) -> None:
        super().__init__(message)
        self.log_bytes = log_bytes
        self.index_bytes = index_bytes


class KeyTaken(Conflict):
    """The user has submitted a job with that idempotency key before."""


class JobFailed(ReactorcideError):
    """The job is at fault: its source, its image or its command. Not retried automatically."""


class RefNotFound(JobFailed):
    """The repository has no branch, tag or commit of that name."""


class JobInterrupted(ReactorcideError):
    """An attempt was interrupted (cancel, shutdown) before its end."""


class InfrastructureError(ReactorcideError):
    """A dependency of the service failed; the job is not at fault."""


class EngineUnavailable(InfrastructureError):
    """The Docker Engine does not answer."""


class EngineBusy(EngineUnavailable):
    """The Docker Engine accepted a call and did not answer in time; it may answer other calls."""


class CorndogsError(InfrastructureError):
    """Corndogs answered with an error."""


class CorndogsUnavailable(CorndogsError):
    """Corndogs does not answer."""


class StoreError(InfrastructureError):
    """The job database failed (locked, full, damaged)."""


class ObjectNotFound(NotFound):
    """No object is stored under that key."""


class ObjectStoreError(InfrastructureError):
    """The object store failed (full, not writable)."""


class LogUnavailable(ObjectStoreError):
    """The job database has a growing log, and cannot be reached; the same call may succeed later."""


class LogTaken(ObjectStoreError):
    """A growing log has another writer by now, or is sealed or removed."""


class LogLost(ObjectStoreError):
    """A growing log cannot be stored, or a part of it is lost, and waiting does not help."""


class ObjectChanged(ObjectStoreError):
    """An object is another one by now than the one that was to be replaced."""


class ObjectStoreRefused(ObjectStoreError):
    """The object store refused the access: wrong credentials, bucket or region."""


class RequestFailed(InfrastructureError):
    """Another host, such as a forge, was not reached or did not answer.

    ``may_arrive``: it was reached, so the request may still take effect.
    """

    def __init__(self, message: str, *, may_arrive: bool = False) -> None:
        super().__init__(message)
        self.may_arrive = may_arrive


class Busy(ReactorcideError):
    """All slots for long requests are taken; ``retry_after_s`` says when to come back."""

    def __init__(self, message: str, retry_after_s: int = 5) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooManyFailures(ReactorcideError):
    """Too many bad tokens from one address; ``retry_after_s`` says when to come back."""

    def __init__(self, message: str, retry_after_s: int = 60) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ConfigurationError(ReactorcideError):
    """The service cannot start with these settings."""
