"""What the engine's description of a container or an image says."""

from collections.abc import Mapping, Sequence
from typing import Any

from reactorcide.runner import Exit


def health_check(test: Sequence[str]) -> list[str] | None:
    """Return the command of an image's ``HEALTHCHECK``."""
    kind, *words = test or ["NONE"]
    if kind == "CMD-SHELL":
        return ["/bin/sh", "-c", *words]
    return words if kind == "CMD" and words else None


def exit_of(details: Mapping[str, Any]) -> Exit | None:
    """Return how a container has ended; ``None`` if it has not."""
    state = details["State"]
    if state["Status"] in ("exited", "dead"):
        return Exit(exit_code=int(state["ExitCode"]), oom_killed=bool(state["OOMKilled"]))
    return None


def may_be_out_of_memory(details: Mapping[str, Any]) -> bool:
    """Return whether a container was killed and the engine may still have to learn that memory was why.

    It learns of the kernel's kill apart from the container's end, and sometimes after it.
    """
    state = details["State"]
    was_killed = state["Status"] == "exited" and state["ExitCode"] == 137 and not state["OOMKilled"]
    return was_killed and details["HostConfig"]["Memory"] > 0
