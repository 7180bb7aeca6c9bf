"""The command line. Each command imports what it needs when it runs: most need little."""

import os
import sys


def main() -> None:
    """Run ``reactorcide``; ends the process."""
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        # Names of files are UTF-8 whatever the locale: else what is stored in one cannot be found in another.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606  # this very program
    from reactorcide.cli.root import cli

    sys.exit(cli(prog_name="reactorcide", auto_envvar_prefix="REACTORCIDE"))
