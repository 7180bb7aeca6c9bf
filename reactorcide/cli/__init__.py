"""The command line. Each command imports what it needs when it runs: most need little."""

import sys


def main() -> None:
    """Run ``reactorcide``; ends the process."""
    from reactorcide.cli.root import cli

    sys.exit(cli(prog_name="reactorcide", auto_envvar_prefix="REACTORCIDE"))
