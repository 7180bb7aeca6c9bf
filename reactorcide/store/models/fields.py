"""Types of columns."""

import json
from dataclasses import asdict
from typing import Any

from peewee import TextField


class JSONField(TextField):
    """A JSON value kept as text."""

    def db_value(self, value: Any) -> str | None:
        """Return what is stored."""
        return None if value is None else json.dumps(value, separators=(",", ":"), default=asdict)

    def python_value(self, value: str | None) -> Any:
        """Return what was put in."""
        return None if value is None else json.loads(value)
