"""Python with the program's modules imported, which forks for each start of the program.

Four fifths of the time of a start go to imports, which are the same every time. This file is the process
that forks; the tests' side of it is ``launch.py``. What runs in the fork is ``main()``, with arguments,
environment, directory and files of its own, and it ends as an interpreter does.
"""

import array
import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
_SKIPPED = ("reactorcide.store.migrations", "reactorcide.corndogs.proto.generate", "reactorcide.__main__")
MAX_REQUEST_BYTES = 1 << 20


def main() -> None:
    """Fork for each request until the tests' process has closed its end; returns in each fork."""
    # Beside this script are modules of the tests, which the program does not see.
    sys.path[0] = str(CHECKOUT)
    _import_all()
    gc.collect()
    gc.freeze()
    requests = socket.socket(fileno=0)
    wake, woken = os.pipe()
    for end in (wake, woken):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(woken)
    default = signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([requests.fileno(), wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            _tell_ends(running)
        if requests.fileno() in ready:
            message, files = _receive(requests)
            if not files:
                os._exit(0)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, default)
                # Closed below, by number: these objects must not close what has the number next.
                for connection in (requests, *running.values()):
                    connection.detach()
                _become(json.loads(message), files)
                return
            answers = socket.socket(fileno=files[0])
            for file in files[1:]:
                os.close(file)
            running[pid] = answers
            answers.send(f"{pid}\n".encode())


def _import_all() -> None:
    import reactorcide

    for module in pkgutil.walk_packages(reactorcide.__path__, "reactorcide."):
        if not module.name.startswith(_SKIPPED):
            importlib.import_module(module.name)


def _receive(requests: socket.socket) -> tuple[bytes, list[int]]:
    """Return a request and its files: where to answer, and the three standard streams."""
    size = array.array("i").itemsize
    message, ancillary, _, _ = requests.recvmsg(MAX_REQUEST_BYTES, socket.CMSG_SPACE(4 * size))
    files = array.array("i")
    for _, _, data in ancillary:
        files.frombytes(data)
    return message, list(files)


def _tell_ends(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        # A test that gave up does not listen any more.
        with contextlib.suppress(OSError):
            running[pid].send(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        running.pop(pid).close()


def _become(request: dict[str, Any], files: list[int]) -> None:
    """Take the arguments, environment, directory and streams of the program that is asked for."""
    for number, file in enumerate(files[1:]):
        os.dup2(file, number)
    os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[:] = request["arguments"]
    sys.orig_argv[:] = [sys.executable, *request["arguments"]]


def _run() -> int:
    """Run the program as an interpreter does, up to where that would free the modules one by one."""
    from reactorcide.cli import main as program

    code: object = 0
    try:
        program()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # as at the end of an interpreter
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if isinstance(code, str):
        print(code, file=sys.stderr)
        return 1
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
    os._exit(_run())
