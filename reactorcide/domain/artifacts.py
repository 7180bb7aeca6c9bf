"""The artifacts of a job."""

import json
from dataclasses import asdict

from reactorcide.lib.records import record

MAX_LISTING_BYTES = 8 << 20
"""Maximum size of the list of a job's artifacts."""


@record
class Artifact:
    """One artifact: a file that a job wrote."""

    path: str
    size: int
    sha256: str
    is_executable: bool = False

    def listed_bytes(self) -> int:
        """Return the maximum size of its entry in the list."""
        return len(json.dumps(asdict(self))) + len(",\n")
