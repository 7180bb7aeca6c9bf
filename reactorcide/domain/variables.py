"""Environment variables: their names, and how large they may be."""

import re
from collections.abc import Mapping

VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
MAX_VALUE_BYTES = 32 << 10
MAX_EXEC_BYTES = 1 << 20
"""Maximum size of a command and all its variables together: the kernel's limit for starting a program."""


def exec_bytes(variables: Mapping[str, object]) -> int:
    """Return how much of ``MAX_EXEC_BYTES`` these variables take."""
    return sum(len(name) + len(str(value).encode()) + 2 for name, value in variables.items())
