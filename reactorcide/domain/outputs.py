"""Outputs that a job of a run passes to the jobs that need it."""

from collections.abc import Mapping
from dataclasses import field

from reactorcide.lib.records import record

Values = Mapping[str, str | None]
"""Values by key; ``None`` for a value that contains a secret, which is not passed on."""

MAX_OUTPUT_BYTES = 64 << 10
"""Maximum size of the file that a job writes."""


@record
class Outputs:
    """The outputs of one job."""

    values: Values = field(default_factory=dict)
    variables: Values = field(default_factory=dict)
    """Outputs written as ``vars``, which later jobs also get in their file of vars."""

    @property
    def all(self) -> Values:
        """The outputs that references can use."""
        return {**self.variables, **self.values}
