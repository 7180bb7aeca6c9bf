"""Imports that fail for lack of descriptors: late ones are made again, and those of the start end it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

# In an interpreter of its own: those of the tests have imported nearly everything.
FAIL_AT_EACH_MODULE = """
import errno, importlib.util, os, sys
import requests  # what the package needs is loaded before, to be quick
from reactorcide.app.parts import docker_runner
from reactorcide.domain.errors import InfrastructureError

def in_fork(call):
    reader, writer = os.pipe()
    if pid := os.fork():
        os.close(writer)
        with open(reader) as output:
            text = output.read()
        assert os.waitpid(pid, 0)[1] == 0, text
        return text.splitlines()
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    call()
    sys.stdout.flush()
    os._exit(0)

def tell_files():
    before = set(sys.modules)
    docker_runner({})
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("docker", "reactorcide"):
            print(sys.modules[name].__file__)

def fail_at(file):
    files = {file, importlib.util.cache_from_source(file)}
    def lack(event, arguments):
        if event == "open" and arguments[0] in files:
            files.discard(arguments[0])
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), arguments[0])
    sys.addaudithook(lack)
    try:
        docker_runner({})
    except InfrastructureError as exc:
        assert str(exc) == "a library could not be loaded: Too many open files", exc
    else:
        raise AssertionError("it did not fail")
    docker_runner({}).close()
    import docker
    assert docker.utils.parse_host(None)
    assert docker.errors.DockerException

files = in_fork(tell_files)
assert len(files) > 50, files
for file in files:
    in_fork(lambda: fail_at(file))
"""


def test_import_that_failed_at_any_module_succeeds_later() -> None:
    done = subprocess.run([sys.executable, "-c", FAIL_AT_EACH_MODULE], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


START = """
import errno, os, re, sys

_, lacked, data_dir = sys.argv

def lack(event, arguments):
    if event in ("open", "os.scandir") and re.search(lacked, str(arguments[0])):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), arguments[0])

sys.addaudithook(lack)
from reactorcide.cli import main
sys.argv = ["reactorcide", "serve", "--port", "0", "--data-dir", data_dir]
main()
"""


@pytest.mark.parametrize("lacked", ["/app/(__pycache__/)?service[.]", "/store/migrations$"])
def test_start_without_descriptors_ends_with_a_sentence(tmp_path: Path, lacked: str) -> None:
    command = [sys.executable, "-c", START, lacked, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert re.fullmatch(
        "reactorcide: cannot start: Too many open files; free some, or raise its limit .*\n", done.stderr
    )
