"""One attempt of a job, from its source to its artifacts."""

from reactorcide.worker.attempt.attempt import Attempt
from reactorcide.worker.attempt.limits import Limits

__all__ = ["Attempt", "Limits"]
