"""The wall clock of a process that a test starts."""

import time
from pathlib import Path

_DIRECTORY = Path(__file__).with_name("clock")


class Clock:
    """A clock that a test sets; the process is started with ``environment``."""

    def __init__(self, path: Path) -> None:
        """``path`` is the file that tells the process how wrong its clock is."""
        self._path = path
        self.be_wrong_by(0)

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a process has this clock."""
        return {"PYTHONPATH": str(_DIRECTORY), "REACTORCIDE_TEST_CLOCK": str(self._path)}

    def be_wrong_by(self, seconds: int) -> None:
        """Let it differ from the machine's clock from now on."""
        self._path.write_text(str(seconds))

    def show(self, at_ms: int) -> None:
        """Set it to just after a time."""
        self.be_wrong_by(at_ms // 1000 - int(time.time()) + 2)
