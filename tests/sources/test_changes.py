"""Which files differ between commits, from real servers."""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reactorcide.domain.errors import JobFailed
from reactorcide.domain.runs import Comparison
from reactorcide.sources.git import GitFolders, check_out_folders
from tests.sources.support import Attempt, Repository, git_http

Changed = tuple[str, ...] | None


def folders_of(
    url: str, ref: str, into: Path, *, is_selected: Callable[[str], bool] = lambda path: False, **options: Any
) -> GitFolders:
    """Check out the one selected file of a repository; ``options`` are what else is asked."""
    return check_out_folders(
        url,
        ref,
        into,
        ["."],
        is_selected=is_selected,
        max_paths=1,
        interrupt=Attempt(),
        deadline=time.monotonic() + 60,
        env=os.environ,
        **options,
    )


@pytest.mark.parametrize("server", ["modern", "no filter", "old"])
def test_branch_or_tag_pointing_to_a_commit_is_recognized(tmp_path: Path, server: str) -> None:
    origin = Repository(tmp_path / "served" / "site")
    first = origin.commit("first", "1")
    origin.git("checkout", "--quiet", "--detach")
    foreign = origin.commit("foreign", "1")
    origin.git("update-ref", "refs/pull/1/head", foreign)
    origin.git("checkout", "--quiet", "main")
    origin.commit("second", "1")
    for name in ("allowAnySHA1InWant", *(["allowFilter"] if server == "modern" else [])):
        origin.git("config", f"uploadpack.{name}", "true")
    with git_http(origin.path.parent, modern=server != "old") as http:
        for ref, expected in ((first, True), (foreign, False), ("refs/pull/1/head", False), ("main", True)):
            into = tmp_path / uuid.uuid4().hex
            into.mkdir()
            folders = folders_of(
                f"{http.url}/site", ref, into, is_selected=lambda path: path == "first", asks_reachable=True
            )
            assert folders.is_reachable == expected, ref
            assert (into / "first").read_text() == "1"


def test_unreadable_history_is_an_error_and_no_foreign_commit(tmp_path: Path) -> None:
    origin = Repository(tmp_path / "site")
    first = origin.commit("first", "1")
    broken = origin.commit("second", "1")
    (origin.path / ".git/objects" / broken[:2] / broken[2:]).unlink()
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(JobFailed, match="cannot fetch the history"):
        folders_of(f"file://{origin.path}", first, into, asks_reachable=True)


@pytest.fixture
def origin(tmp_path: Path) -> Repository:
    """A repository whose branch ``fix`` starts at the first commit of ``main``."""
    repository = Repository(tmp_path / "served" / "site")
    repository.commit("first", "1")
    repository.git("checkout", "--quiet", "-b", "fix")
    repository.commit("fixed", "1")
    repository.git("checkout", "--quiet", "main")
    repository.commit("second", "2")
    return repository


@pytest.fixture(params=["modern", "old", "old, no sha", "file"])
def compare(
    request: pytest.FixtureRequest, origin: Repository, tmp_path: Path
) -> Iterator[Callable[..., Changed]]:
    """Compares commits of the repository; servers of the old protocol may send only the tips of refs."""
    if request.param != "old, no sha":
        origin.git("config", "uploadpack.allowAnySHA1InWant", "true")
        origin.git("config", "uploadpack.allowFilter", "true")

    def call(url: str, ref: str, comparison: Comparison) -> Changed:
        into = tmp_path / uuid.uuid4().hex
        into.mkdir()
        return folders_of(url, ref, into, comparison=comparison).changed

    if request.param == "file":
        yield lambda ref, comparison: call(f"file://{origin.path}", ref, comparison)
        return
    with git_http(origin.path.parent, modern=request.param == "modern") as server:
        yield lambda ref, comparison: call(f"{server.url}/site", ref, comparison)


def test_a_push_is_compared_with_the_commit_before(
    origin: Repository, compare: Callable[..., Changed]
) -> None:
    before = origin.git("rev-parse", "main")
    origin.commit("with space", "3")
    (origin.path / "first").unlink()
    after = origin.commit("second", "4")
    for ref in (after, "main"):
        assert compare(ref, Comparison(sha=before)) == ("first", "second", "with space")
    assert compare("main", Comparison(sha=after)) == ()


def test_forced_push_is_compared_with_the_previous_commit(
    origin: Repository, compare: Callable[..., Changed], request: pytest.FixtureRequest
) -> None:
    before = origin.git("rev-parse", "main")
    origin.git("reset", "--quiet", "--hard", "main~1")
    origin.commit("other", "1")
    changed = compare("main", Comparison(sha=before))
    # The server has it still, and says whether it sends it. Others have lost it.
    is_sent = request.node.callspec.params["compare"] in ("modern", "old")
    assert changed == ("other", "second") if is_sent else changed in (None, ("other", "second"))
    assert compare("main", Comparison(sha="f" * 40)) is None


def test_branch_is_compared_with_its_merge_base(origin: Repository, compare: Callable[..., Changed]) -> None:
    assert compare("fix", Comparison(branch="main")) == ("fixed",)
    assert compare(origin.git("rev-parse", "fix"), Comparison()) == ("fixed",)
    assert compare("main", Comparison(branch="fix")) == ("second",)
    assert compare("main", Comparison(branch="gone")) is None


def test_a_merge_is_compared_with_its_base(origin: Repository, compare: Callable[..., Changed]) -> None:
    base = origin.git("rev-parse", "main")
    origin.commit("meanwhile", "1")
    origin.git("merge", "--quiet", "--no-edit", "--no-ff", "fix")
    assert compare("main", Comparison(sha=base, is_merge=True)) == ("fixed",)
    assert compare("main", Comparison(is_merge=True)) == ("fixed",)
    # A squash or a rebase.
    origin.git("reset", "--quiet", "--hard", base)
    origin.commit("one", "1")
    origin.commit("two", "2")
    assert compare("main", Comparison(sha=base, is_merge=True)) == ("one", "two")
    assert compare("main", Comparison(is_merge=True)) is None


def test_a_new_default_branch_has_no_commit_to_compare_with(compare: Callable[..., Changed]) -> None:
    assert compare("main", Comparison(own_branch="main")) is None


def test_history_is_deepened_on_demand(origin: Repository, compare: Callable[..., Changed]) -> None:
    for number in range(60):
        origin.commit("second", f"{number}")
    assert compare("fix", Comparison(branch="main")) == ("fixed",)


def test_branches_without_a_common_commit_have_no_merge_base(
    origin: Repository, compare: Callable[..., Changed]
) -> None:
    origin.git("checkout", "--quiet", "--orphan", "other")
    origin.commit("other", "1")
    assert compare("other", Comparison(branch="main")) is None
