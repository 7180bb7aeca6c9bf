"""The start of the one-file executable: ``reactorcide``, or a program that it starts for itself."""

import importlib
import os
import re
import sys

# As reactorcide/lib/programs.py starts them, by what it takes for the interpreter: this file.
_PROGRAM = re.compile(r"from (reactorcide(?:\.\w+)+) import main; main\(\)")


def _restore_library_path() -> None:
    """Have git and ssh use the system's libraries: PyInstaller's loader has set the path for this process."""
    os.environ.pop("LD_LIBRARY_PATH", None)
    original = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
    if original is not None:
        os.environ["LD_LIBRARY_PATH"] = original


def _main() -> None:
    _restore_library_path()
    if sys.argv[1:3] == ["-P", "-c"] and (program := _PROGRAM.fullmatch(sys.argv[3])):
        importlib.import_module(program[1]).main()
        return
    if sys.argv[1:3] == ["-m", "reactorcide"]:
        del sys.argv[1:3]
    from reactorcide.cli import main

    main()


_main()
