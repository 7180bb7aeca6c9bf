"""Names and labels of containers and volumes, by which they are known again."""

import secrets
from collections.abc import Mapping
from typing import Any

from reactorcide.runner import ContainerInfo, ContainerSpec

_LABEL = "reactorcide."
LABEL_INSTANCE = _LABEL + "instance"
LABEL_JOB = _LABEL + "job"
LABEL_ATTEMPT = _LABEL + "attempt"
LABEL_SERVICE = _LABEL + "service"
LABEL_WARM = _LABEL + "warm"
WARM_PREFIX = "reactorcide-warm-"
"""The beginning of the name of a container that no job has yet."""


def container_name(job_id: str, attempt: int, service: str | None = None) -> str:
    """Return the name of an attempt's container, or of that of its service; two of one name can't exist."""
    return f"reactorcide-{job_id}-{attempt}" + ("" if service is None else f"-{service}")


def attempt_labels(spec: ContainerSpec) -> dict[str, str]:
    """Return the labels of an attempt's containers and volumes."""
    return {
        LABEL_INSTANCE: spec.instance_id,
        LABEL_JOB: spec.job_id,
        LABEL_ATTEMPT: str(spec.attempt),
    }


def warm_name() -> str:
    """Return the name of a container that no job has yet."""
    return f"{WARM_PREFIX}{secrets.token_hex(8)}"


def warm_labels(instance_id: str) -> dict[str, str]:
    """Return the labels of a container that was created ahead of jobs; they cannot be changed later."""
    return {LABEL_INSTANCE: instance_id, LABEL_WARM: "1"}


def container_info(item: Mapping[str, Any]) -> ContainerInfo | None:
    """Return a container of the engine's list; ``None`` for one with labels that no attempt has."""
    key = attempt_of(item["Labels"])
    if key is None:
        return None
    service = item["Labels"].get(LABEL_SERVICE)
    # The engine writes names with a slash before them.
    is_named = container_name(*key, service) in [name.removeprefix("/") for name in item["Names"] or ()]
    return ContainerInfo(str(item["Id"]), *key, service, is_named)


def attempt_of(labels: Mapping[str, str]) -> tuple[str, int] | None:
    """Return the job's id and the number of the attempt that labels name, if they name one."""
    job_id, attempt = labels.get(LABEL_JOB), labels.get(LABEL_ATTEMPT, "")
    if job_id is None or not attempt.isascii() or not attempt.isdigit():
        return None
    return job_id, int(attempt)
