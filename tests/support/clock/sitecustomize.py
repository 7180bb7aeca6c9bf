"""Python imports this at its start where its directory is on the path: a wall clock that a test can set.

The file named by ``REACTORCIDE_TEST_CLOCK`` holds the seconds by which ``time.time_ns`` is wrong, which is
all that the service reads. ``time.time`` stays right: gRPC compares it with the machine's own clock.
"""

import os
import time
from pathlib import Path

_FILE = Path(os.environ["REACTORCIDE_TEST_CLOCK"])
_time_ns = time.time_ns


def _shifted_ns() -> int:
    return _time_ns() + int(_FILE.read_text() or "0") * 1_000_000_000


time.time_ns = _shifted_ns
