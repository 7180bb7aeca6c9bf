"""The command line. Each command imports what it needs when it runs: most need little."""

import os
import sys


def main() -> None:
    """Run ``reactorcide``; ends the process."""
    _open_standard_streams()
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        # File names are UTF-8 in every locale; otherwise files stored under one locale are missing under
        # another.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606  # this very program
    from reactorcide.cli.root import cli

    sys.exit(cli(prog_name="reactorcide", auto_envvar_prefix="REACTORCIDE"))


def _open_standard_streams() -> None:
    """Open ``/dev/null`` for each standard stream that is closed.

    Otherwise the next file or socket would get its number, and receive everything that this program or a
    child prints.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  # as long as the process
