"""Import peewee without the drivers of other databases: it would load each that is installed, used or not."""

import importlib
import sys

_DRIVERS = ("psycopg", "psycopg2", "psycopg2cffi")


def import_peewee() -> None:
    """Import peewee alone; safe to repeat. A driver can be imported afterwards."""
    if "peewee" in sys.modules:
        return
    kept_out = [name for name in _DRIVERS if name not in sys.modules]
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]  # None: an import of it fails
    modules.update(dict.fromkeys(kept_out))
    try:
        importlib.import_module("peewee")
    finally:
        for name in kept_out:
            del modules[name]


import_peewee()
