"""What a job of a run hands on to the jobs that need it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Values = Mapping[str, str | None]
"""By key; ``None`` for a value with a secret in it, which is not handed on."""

MAX_OUTPUT_BYTES = 64 << 10
"""Of the file that a job writes."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """The outputs of one job."""

    values: Values = field(default_factory=dict)
    variables: Values = field(default_factory=dict)
    """Those that it has written as ``vars``, which come to the later jobs in their file of vars as well."""

    @property
    def all(self) -> Values:
        """What can be asked for."""
        return {**self.variables, **self.values}
