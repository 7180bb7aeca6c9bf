"""Late imports that fail for lack of descriptors, and are made again."""

import subprocess
import sys

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
