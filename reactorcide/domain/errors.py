"""Every error the package raises on purpose.

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
    """The caller is not known."""


class Forbidden(ReactorcideError):
    """The caller is known and may not do this."""


class NotFound(ReactorcideError):
    """There is no such thing."""


class Conflict(ReactorcideError):
    """The thing is not in a state that allows this."""


class IllegalTransition(Conflict):
    """A guarded status change found the job in another status than it needs."""


class KeyTaken(Conflict):
    """The user has submitted a job with that idempotency key before."""


class JobFailed(ReactorcideError):
    """The job is to blame: its source, its image or its command. Never retried by itself."""


class RefNotFound(JobFailed):
    """The repository has no branch, tag or commit of that name."""


class JobInterrupted(ReactorcideError):
    """An attempt was told to stop (cancel, shutdown) before it was over."""


class InfrastructureError(ReactorcideError):
    """A part that the service depends on did not do its work; the job is not to blame."""


class EngineUnavailable(InfrastructureError):
    """The Docker Engine does not answer."""


class EngineBusy(EngineUnavailable):
    """The Docker Engine took a call and has not answered it in time; others it may well answer."""


class CorndogsError(InfrastructureError):
    """Corndogs answered with an error."""


class CorndogsUnavailable(CorndogsError):
    """Corndogs does not answer."""


class StoreError(InfrastructureError):
    """The job database did not do its work (locked, full, damaged)."""


class ObjectNotFound(NotFound):
    """No object is stored under that key."""


class ObjectStoreError(InfrastructureError):
    """The object store did not do its work (full, not writable)."""


class ObjectStoreRefused(ObjectStoreError):
    """The object store answered that it may not be used like this: credentials, bucket, region."""


class RequestFailed(InfrastructureError):
    """Another host, such as a forge, was not reached or did not answer.

    ``may_arrive``: it was reached, so that it may still do what the request asks for.
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
