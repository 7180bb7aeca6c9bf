"""Caches of runs on the real engine: restoring, saving, and who can see them."""

import sqlite3
import tarfile
import uuid
import zlib
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from tests.conftest import NewService
from tests.sources.support import Repository
from tests.support.client import Client
from tests.support.image import Images
from tests.support.runs import node, over, repository, start
from tests.support.service import Service
from tests.support.tars import member, tar
from tests.support.waiting import wait_until

NewProject = Callable[..., Repository]
# It prints what it finds, and leaves what the source has.
TEXT = """
name: CI
on: [push, pull_request]
jobs:
  a:
    cache: [{key: [deps, "file:**/lock"], paths: [/cache/dir, local], restore_keys: [deps]}]
    command: |
      cat /cache/dir/below/deps local/deps 2>/dev/null || echo nothing
      mkdir -p /cache/dir/below local
      cp lock /cache/dir/below/deps; cp lock local/deps; ln -sf below/deps /cache/dir/link
"""


@pytest.fixture
def project(service: Service) -> NewProject:
    """A factory of repositories below the shared service's source root."""
    return lambda text, lock="one\n": _project(service, text, lock)


def _project(service: Service, text: str, lock: str = "one\n") -> Repository:
    source = repository(service.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": text})
    source.commit("lock", lock)
    return source


def log_of(api: Client, source: Repository, *, status: str = "completed", **fields: Any) -> str:
    """Run the workflow and return the log of its job ``a``."""
    ended = over(api, start(api, source, **fields))
    job = {"job_id": node(ended, "a")["job_id"]}
    log = api.log(job).decode()
    assert ended["status"] == status, log
    return log


def caches_of(api: Client, source: Repository) -> list[dict[str, Any]]:
    """Return the caches of a repository, the oldest first."""
    newest_first = api.get("caches", limit=200)["caches"]
    return [item for item in reversed(newest_first) if item["repository"] == f"file://{source.path}"]


def test_a_cache_is_found_by_its_key_and_never_changes(api: Client, project: NewProject) -> None:
    source = project(TEXT)
    first = log_of(api, source)
    assert "nothing\n" in first
    (cache,) = caches_of(api, source)
    key = cache["key"]
    assert f"cache {key} is not there yet\n" in first
    assert f"cache {key} is saved (" in first
    assert cache["branch"] == "main"
    assert cache["paths"] == ["/cache/dir", "local"]
    assert key.startswith("deps-")
    assert len(key) == len("deps-") + 64
    # What the key names has not changed, and so the cache does not either.
    source.commit("other", "another file\n")
    second = log_of(api, source)
    assert "one\none\n" in second
    assert f"cache {key} is restored (" in second
    assert "saved" not in second
    assert [item["cache_id"] for item in caches_of(api, source)] == [cache["cache_id"]]
    # The newest of a prefix, where there is none with the key.
    source.commit("lock", "two\n")
    third = log_of(api, source)
    assert "one\none\n" in third
    assert f"cache {key} is restored (" in third
    newest = caches_of(api, source)[-1]
    assert f"cache {newest['key']} is saved (" in third
    assert newest["key"] != key
    assert "two\ntwo\n" in log_of(api, source)
    source.commit("lock", "three\n")
    assert "two\ntwo\n" in log_of(api, source)


def test_the_hash_of_files_is_that_of_their_paths_and_contents(api: Client, project: NewProject) -> None:
    source = project(TEXT)
    (source.path / "b").mkdir()
    source.commit("b/lock", "below\n")
    log_of(api, source)
    keys = [item["key"] for item in caches_of(api, source)]
    # The same bytes in another place are something else.
    source.git("mv", "b", "c")
    source.git("commit", "-qm", "move")
    log_of(api, source)
    assert len({*keys, *(item["key"] for item in caches_of(api, source))}) == 2
    missing = project(TEXT.replace("**/lock", "no/such"))
    assert "cache deps-file:no/such is not used: no/such matches no file of the source\n" in log_of(
        api, missing
    )
    assert caches_of(api, missing) == []


def test_run_reads_caches_of_its_branch_base_and_default_branch_and_writes_its_own(
    api: Client, project: NewProject
) -> None:
    source = project(TEXT)
    log_of(api, source)
    for branch in ("feature", "other"):
        source.git("checkout", "-q", "-b", branch, "main")
        source.commit("lock", f"{branch}\n")
        source.git("checkout", "-q", "main")
        # From the default branch.
        assert "one\none\n" in log_of(api, source, git_ref=branch)
    assert [item["branch"] for item in caches_of(api, source)] == ["main", "feature", "other"]
    # No other branch is read, however new its caches are.
    source.git("checkout", "-q", "-b", "third", "main")
    source.commit("lock", "third\n")
    source.git("checkout", "-q", "main")
    assert "one\none\n" in log_of(api, source, git_ref="third")
    pull_request = {"name": "pull_request_opened", "branch": "third", "base_branch": "feature"}
    source.git("checkout", "-q", "third")
    source.commit("lock", "fourth\n")
    source.git("checkout", "-q", "main")
    assert "third\nthird\n" in log_of(api, source, git_ref="third", event=pull_request)
    # Of two that begin like this, that of the base comes before that of the default branch.
    fifth = pull_request | {"branch": "fifth"}
    assert "feature\nfeature\n" in log_of(api, source, git_ref="third", event=fifth)


def test_fork_reads_caches_of_its_base_and_writes_none(api: Client, project: NewProject) -> None:
    source = project(TEXT)
    log_of(api, source)
    source.commit("lock", "forked\n")
    event = {"name": "pull_request_opened", "branch": "main", "base_branch": "main", "is_fork": True}
    log = log_of(api, source, event=event)
    assert "one\none\n" in log
    assert "saved" not in log
    assert len(caches_of(api, source)) == 1


def test_cache_is_saved_only_by_a_succeeded_job(api: Client, project: NewProject) -> None:
    source = project(TEXT + "      exit 3\n")
    assert "saved" not in log_of(api, source, status="failed")
    assert caches_of(api, source) == []
    nothing = project(TEXT.replace("mkdir", "exit 0; mkdir"))
    assert "is not saved: none of its paths is there\n" in log_of(api, nothing)


HOSTILE = """
name: CI
on: push
jobs:
  a:
    cache: [{key: [k], paths: [/cache/dir, /cache/link, /cache/file]}]
    command: |
      ls -ln /cache/dir /cache/file 2>/dev/null && exit
      mkdir -p /cache/dir; echo x > /cache/file
      %s
"""


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("ln -s /etc /cache/link", "is not saved: '/cache/link': the path itself is a link"),
        (
            "cd /cache/dir; i=0; while [ $i -lt 130 ]; do mkdir d; cd d; i=$((i + 1)); done",
            "its path is too deep",
        ),
        # Reading that would take hours.
        (
            "truncate -s 15000G /cache/dir/hole",
            "is not saved: it is larger than 10 GiB (--max-cache-bytes)\n",
        ),
    ],
)
def test_uncacheable_files_are_reported_in_the_log(
    api: Client, project: NewProject, command: str, sentence: str
) -> None:
    source = project(HOSTILE % command)
    assert sentence in log_of(api, source)
    assert caches_of(api, source) == []


def test_cache_restores_links_names_and_modes(api: Client, project: NewProject) -> None:
    command = (
        "cd /cache/dir; ln -s /etc/passwd out; ln ../file hard; echo a > a; ln a b; chmod 750 a; "
        "mkfifo pipe; mkdir e; touch \"$(printf 'n\\377\\nl')\""
    )
    source = project(HOSTILE % command)
    assert "is saved" in log_of(api, source)
    log = log_of(api, source)
    for line in ("out -> /etc/passwd", "-rwxr-x---    2 0        0"):
        assert line in log
    assert "pipe" not in log


def test_cached_files_belong_to_the_user_of_the_image(
    api: Client, images: Images, project: NewProject
) -> None:
    text = f"""
name: CI
on: push
jobs:
  a:
    image: {images.user_1000}
    cache: [{{key: [k], paths: [/tmp/home/.cache/x]}}]
    command: |
      mkdir -p /tmp/home/.cache/x; echo y > /tmp/home/.cache/other; echo z >> /tmp/home/.cache/x/f
      ls -lna /tmp/home/.cache/x /tmp/home
"""
    source = project(text)
    assert "is saved" in log_of(api, source)
    log = log_of(api, source)
    assert "drwxr-xr-x    3 1000     1000" in log
    assert "-rw-r--r--    1 1000     1000             4" in log


def test_damaged_cache_is_a_logged_miss(new_service: NewService) -> None:
    service = new_service()
    source = _project(service, TEXT)
    log_of(service.admin, source)
    for is_removed in (False, True):
        (cache,) = caches_of(service.admin, source)
        path = service.data_dir / "objects" / "caches" / cache["cache_id"] / "tar"
        if is_removed:
            path.unlink()
        else:
            path.write_bytes(b"x" + path.read_bytes()[1:])
        log = log_of(service.admin, source)
        assert f"cache {cache['key']} is damaged, so it is removed and not restored\n" in log
        assert "nothing\n" in log
        assert f"cache {cache['key']} is saved (" in log
        (again,) = caches_of(service.admin, source)
        assert again["cache_id"] != cache["cache_id"]
        assert "one\none\n" in log_of(service.admin, source)


FORGED: list[list[tuple[tarfile.TarInfo, bytes]]] = [
    [member("0", kind=tarfile.DIRTYPE), member("0/../../evil")],
    [
        member("0", kind=tarfile.DIRTYPE),
        member("0/l", kind=tarfile.SYMTYPE, target="/"),
        member("0/l/evil"),
    ],
    [member("0", kind=tarfile.SYMTYPE, target="/"), member("0/evil")],
    [member("evil")],
    [member("0", kind=tarfile.DIRTYPE), member("0/evil", kind=tarfile.LNKTYPE, target="etc/passwd")],
    [member("0", kind=tarfile.DIRTYPE), member("0/evil", kind=tarfile.FIFOTYPE)],
]


def test_forged_cache_writes_nothing_outside_of_its_path(
    service: Service, api: Client, project: NewProject
) -> None:
    text = TEXT + "      find / -name evil -not -path '/proc/*' -not -path '/sys/*'\n"
    sources = [project(text) for _ in FORGED]
    # Together, for each takes a while.
    for run in [start(api, source) for source in sources]:
        over(api, run)
    keys = []
    with closing(sqlite3.connect(service.data_dir / "reactorcide.db")) as database:
        for source, members in zip(sources, FORGED, strict=True):
            (cache,) = caches_of(api, source)
            keys.append(cache["key"])
            forged = tar(*members)
            (service.data_dir / "objects" / "caches" / cache["cache_id"] / "tar").write_bytes(forged)
            with database:
                values = (len(forged), zlib.crc32(forged), cache["cache_id"])
                database.execute("UPDATE cache SET size_bytes = ?, crc32 = ? WHERE cache_id = ?", values)
    runs = [start(api, source) for source in sources]
    for run, key, members in zip(runs, keys, FORGED, strict=True):
        ended = over(api, run)
        assert ended["status"] == "completed", members
        job = {"job_id": node(ended, "a")["job_id"]}
        # Whatever of it was put lies in a container that is thrown away.
        assert api.job(job)["attempt"] == 2, members
        assert f"the cache {key} is removed: " in api.log(job, attempt=1).decode()
        log = api.log(job).decode()
        assert "evil" not in log, members
        assert "nothing\n" in log


BIG = """
name: CI
on: push
vars: {name: a, size: "400"}
jobs:
  a:
    cache: [{key: ["${vars.name}"], paths: [/big]}]
    command: test -f /big && exit; head -c ${SIZE}k /dev/zero > /big
    environment: {SIZE: "${vars.size}"}
"""


def test_least_recently_used_cache_is_evicted(new_service: NewService) -> None:
    service = new_service(max_cache_bytes="1m")
    api, source = service.admin, _project(service, BIG)

    def keys() -> list[str]:
        return [item["key"] for item in caches_of(api, source)]

    for name in ("a", "b"):
        log_of(api, source, vars={"name": name})
    assert "cache a is restored" in log_of(api, source)
    log_of(api, source, vars={"name": "c"})
    assert keys() == ["a", "c"]
    log = log_of(api, source, vars={"name": "d", "size": "2000"})
    assert "cache d is not saved: it is larger than 1 MiB (--max-cache-bytes)\n" in log
    assert keys() == ["a", "c"]
    objects = {path.name for path in (service.data_dir / "objects" / "caches").iterdir()}
    assert objects == {item["cache_id"] for item in caches_of(api, source)}
    # Another user has room of their own.
    other = service.add_user("other")
    log_of(other, source, vars={"name": "e"})
    assert keys() == ["a", "c", "e"]
    assert [item["key"] for item in other.get("caches")["caches"]] == ["e"]
    user_id = other.get("users/me")["user_id"]
    service.stop()
    service.options["max_cache_bytes"] = "500k"
    service.start()
    wait_until(lambda: keys() == ["c", "e"], 20, "what is beyond the bound is removed")
    service.admin.request("DELETE", f"users/{user_id}")
    service.stop()
    service.start()
    wait_until(lambda: keys() == ["c"], 20, "what belongs to nobody is removed")


def test_disabled_caches_are_reported_in_the_log(new_service: NewService) -> None:
    service = new_service(max_cache_bytes=0)
    source = _project(service, TEXT)
    assert "they are turned off here (--max-cache-bytes 0)" in log_of(service.admin, source)
    assert caches_of(service.admin, source) == []
