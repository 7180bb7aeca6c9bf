"""Programs of ours that read what a stranger has written: processes with a deadline and a bound on memory.

What is read in a thread can neither be stopped nor bounded, and no other thread runs meanwhile.
"""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

_ROOT = str(Path(__file__).parents[2])
_MAX_REASON_CHARS = 500


class ProgramError(Exception):
    """A program did not do its work; the text says why."""


class TooSlow(ProgramError):
    """It did not end in time; the machine may be busy."""


class TooLarge(ProgramError):
    """It needed more memory, or time of the processor, than it may have."""


def run(module: str, request: bytes, *, timeout_s: float) -> bytes:
    """Return what ``main`` of a module of ours writes, which reads ``request`` from its input.

    It has nothing of this process's environment. Raises ``TooSlow``, ``TooLarge`` or ``ProgramError``.
    """
    try:
        done = subprocess.run(  # noqa: S603  # our own program
            [sys.executable, "-P", "-c", f"from {module} import main; main()"],
            input=request,
            capture_output=True,
            env=_environment(),
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise TooSlow(f"it took longer than {timeout_s:g} s") from exc
    except OSError as exc:
        raise ProgramError(str(exc)) from exc
    if done.returncode == -signal.SIGXCPU:
        raise TooLarge("it needed more time of the processor than it may have")
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:_MAX_REASON_CHARS]
        if "MemoryError" in reason:
            raise TooLarge(reason)
        raise ProgramError(f"it ended with {done.returncode}: {reason}")
    return done.stdout


def limit_memory(max_bytes: int) -> None:
    """Bound the memory of this process, unless there is a lower bound; called by such a program."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard == resource.RLIM_INFINITY or max_bytes < hard:
        resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))


def limit_cpu(max_s: int) -> None:
    """Bound the time of the processor that this process has, and let others go first; as ``limit_memory``."""
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_CPU, (max_s, max_s + 1))


def _environment() -> dict[str, str]:
    return {
        "PYTHONPATH": os.pathsep.join([_ROOT, *sys.path[1:]]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
    }
