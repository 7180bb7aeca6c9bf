"""Imports that are made late: when what they load is first needed, in a service that runs."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from reactorcide.domain.errors import InfrastructureError

_SHORTAGES = (
    *map(os.strerror, (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)),
    # The system's loader of shared objects, which has no error number, has other words for a lack of memory.
    "failed to map segment from shared object",
)

_has_failed = False


@contextmanager
def late_imports() -> Iterator[None]:
    """Around import statements in a function: where they fail for lack of something, later ones succeed.

    Raises ``InfrastructureError`` for a lack of descriptors or memory.
    """
    global _has_failed
    try:
        yield
    except (ImportError, OSError, MemoryError) as exc:
        _has_failed = True
        shortage = shortage_of(exc)
        if shortage is None:
            raise
        raise InfrastructureError(f"a library could not be loaded: {shortage}") from exc
    if _has_failed:
        _attach_modules()


def shortage_of(exc: ImportError | OSError | MemoryError) -> str | None:
    """Return the words for a lack of descriptors or memory, if an error is one."""
    if isinstance(exc, MemoryError):
        return os.strerror(errno.ENOMEM)
    return next((words for words in _SHORTAGES if words in str(exc)), None)


def _attach_modules() -> None:
    """Make each loaded module an attribute of its package.

    Python forgets a package whose import has failed, but not the modules of it that were loaded by then. The
    next import makes the package anew, and finds those modules without making them attributes of it.
    """
    for name, module in list(sys.modules.items()):
        package_name, _, attribute = name.rpartition(".")
        package = sys.modules.get(package_name)
        if isinstance(package, ModuleType) and attribute not in vars(package):
            setattr(package, attribute, module)
