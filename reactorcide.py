#!/usr/bin/env python3
"""Run Reactorcide from a checkout: ``./reactorcide.py serve`` is ``reactorcide serve``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # The script's own directory is first on sys.path, and there this file would shadow the
    # package of the same name; a package wins over a module of the same name in one directory,
    # so only the order of the entries has to be right.
    sys.path.insert(0, str(Path(__file__).resolve().parent))

    from reactorcide.cli import main

    main()
