"""What a cache costs its job, beside tar on the same disk."""

import os
import subprocess
import tempfile
from itertools import count
from pathlib import Path

from benchmarks.figures import Figure, interleaved, ratio, seconds
from benchmarks.runs import project, run
from benchmarks.service import serving

_FILES = 2000
_FILE_BYTES = 50_000
_MAKE = (
    "mkdir /data; i=0; while [ $i -lt {} ]; do "
    f"head -c {_FILE_BYTES} /dev/urandom >/data/$i; i=$((i+1)); done"
)


def saved(image: str, *, quick: bool) -> Figure:
    """Compare the bytes a second at which a cache is saved with those of ``tar`` into a file."""
    return _measure(image, quick=quick, is_saved=True)


def restored(image: str, *, quick: bool) -> Figure:
    """Compare the bytes a second at which a cache is restored with those of ``tar`` out of a file."""
    return _measure(image, quick=quick, is_saved=False)


def _measure(image: str, *, quick: bool, is_saved: bool) -> Figure:
    """Ours is how much longer a job takes with its cache than the same job without one."""
    files = 200 if quick else _FILES
    make = _MAKE.format(files)
    with_cache = (
        f'  a: {{image: "{image}", checkout: false, cache: {{key: "${{event.branch}}", paths: /data}}, '
        f'command: "test -d /data && exit; {make}"}}\n'
    )
    without = f'  a: {{image: "{image}", checkout: false, command: "{make if is_saved else "true"}"}}\n'
    size_bytes = files * _FILE_BYTES
    branches = count()
    with (
        project(with_cache) as cached,
        project(without) as plain,
        serving("--concurrency", "1", "--source-root", tempfile.gettempdir()) as service,
        tempfile.TemporaryDirectory(dir=service.data_dir) as directory,
    ):
        client = service.client()
        packed = _packed(Path(directory), files)

        def ours() -> float:
            branch = f"b{next(branches) if is_saved else 0}"
            took_s = seconds(lambda: run(client, cached, event={"branch": branch}))
            return size_bytes / max(0.001, took_s - seconds(lambda: run(client, plain))) / 1e6

        def bare() -> float:
            return size_bytes / seconds(lambda: _tar(packed, is_saved=is_saved)) / 1e6

        ours_mb, bare_mb = interleaved(1 if quick else 5, ours, bare)
    name = f"cache of {size_bytes // 1_000_000} MB in {files:,} files {'saved' if is_saved else 'restored'}"
    return ratio(name, ours_mb, bare_mb, unit="MB/s", mark=0.2, at_least=True)


def _packed(directory: Path, files: int) -> Path:
    """Make the same files on the disk of the service, and a tar of them; returns that."""
    data = directory / "data"
    data.mkdir()
    for number in range(files):
        (data / str(number)).write_bytes(os.urandom(_FILE_BYTES))
    packed = directory / "data.tar"
    _tar(packed, is_saved=True)
    return packed


def _tar(packed: Path, *, is_saved: bool) -> None:
    """Pack the files anew, durably as an object is, or unpack them."""
    home = packed.parent
    if is_saved:
        subprocess.run(["tar", "-cf", packed, "data"], cwd=home, check=True)
        with packed.open("rb") as file:
            os.fsync(file.fileno())
        return
    subprocess.run(["tar", "-xf", packed], cwd=tempfile.mkdtemp(dir=home), check=True)
