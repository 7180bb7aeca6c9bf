"""The operator's defaults and maxima for jobs."""

from reactorcide.domain.errors import InvalidInput
from reactorcide.lib.records import record
from reactorcide.lib.sizes import format_size


@record(kw_only=True)
class JobDefaults:
    """Defaults and maxima of a job's image and limits; ``None`` is no limit."""

    image: str
    cpu_limit: float | None = None
    max_cpu_limit: float | None = None
    memory_limit_bytes: int | None = None
    max_memory_limit_bytes: int | None = None
    is_run_local: bool = False
    """Whether ``run_local`` of a workflow's job is used."""
    buildkit_address: str | None = None
    """The BuildKit for jobs that may build images; ``None``: no job may."""

    def cpus(self, requested: float | None) -> float | None:
        """Return the CPU limit for a job's requested one; raises ``InvalidInput`` above the maximum."""
        limit = requested or self.cpu_limit or self.max_cpu_limit
        if self.max_cpu_limit is not None and limit is not None and limit > self.max_cpu_limit:
            raise InvalidInput(
                f"cpu_limit is above the server's maximum of {self.max_cpu_limit:g}", "cpu_limit"
            )
        return limit

    def memory_bytes(self, requested_bytes: int | None) -> int | None:
        """Return the memory limit for a job's requested one; raises ``InvalidInput`` above the maximum."""
        limit_bytes = requested_bytes or self.memory_limit_bytes or self.max_memory_limit_bytes
        max_bytes = self.max_memory_limit_bytes
        if max_bytes is not None and limit_bytes is not None and limit_bytes > max_bytes:
            raise InvalidInput(
                f"memory_limit is above the server's maximum of {format_size(max_bytes)}", "memory_limit"
            )
        return limit_bytes
