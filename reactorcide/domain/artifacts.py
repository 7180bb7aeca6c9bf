"""What a job left in its artifacts directory."""

import json
from dataclasses import asdict, dataclass

MAX_LISTING_BYTES = 8 << 20
"""Of the list of what a job left."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file that a job left."""

    path: str
    size: int
    sha256: str
    is_executable: bool = False

    def listed_bytes(self) -> int:
        """Return what it takes in the list, at most."""
        return len(json.dumps(asdict(self))) + len(",\n")
