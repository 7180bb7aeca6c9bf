"""Workflow files that are links: only those to a regular file of the same commit are followed."""

import os
import time
from pathlib import Path

import pytest

from reactorcide.domain.errors import JobFailed
from reactorcide.lib.links import leads_to
from reactorcide.sources.git import check_out_folders
from tests.sources.support import Attempt, Repository, git_http


def checked_out(origin: Repository, into: Path, url: str | None = None) -> dict[str, str]:
    """Return the contents of the workflow files of the repository's last commit."""
    into.mkdir()
    folders = check_out_folders(
        url or f"file://{origin.path}",
        "main",
        into,
        ["flows"],
        is_selected=lambda path: path.endswith(".yaml"),
        max_paths=10,
        interrupt=Attempt(),
        deadline=time.monotonic() + 60,
        env=os.environ,
    )
    return {path: (into / file).read_text() for path, file in folders.paths.items()}


@pytest.fixture
def origin(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "origin")
    (repository.path / "flows").mkdir()
    (repository.path / "shared dir").mkdir()
    (repository.path / "shared dir" / "[x]*").write_text("shared")
    (repository.path / "up").symlink_to("..")
    (repository.path / "chain").symlink_to("shared dir/[x]*")
    (tmp_path / "outside").write_text("outside")
    repository.commit("flows/own.yaml", "own")
    return repository


def test_a_link_to_a_file_of_the_commit_is_followed(origin: Repository, tmp_path: Path) -> None:
    (origin.path / "flows" / "linked.yaml").symlink_to("../shared dir/[x]*")
    origin.commit("file", "x")
    assert checked_out(origin, tmp_path / "into") == {
        "flows/own.yaml": "own",
        "flows/linked.yaml": "shared",
    }


SETTINGS = ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant")


@pytest.mark.parametrize(
    ("modern", "allowed", "is_filtered"),
    [(True, SETTINGS[:1], True), (False, SETTINGS, True), (True, (), False), (False, SETTINGS[:1], False)],
    ids=["modern", "old", "no filter", "no blob alone"],
)
def test_only_the_linked_file_is_fetched_if_the_server_supports_it(
    origin: Repository, tmp_path: Path, modern: bool, allowed: tuple[str, ...], is_filtered: bool
) -> None:
    (origin.path / "flows" / "linked.yaml").symlink_to("../shared dir/[x]*")
    origin.commit("large", "x" * 10_000)
    for name in allowed:
        origin.git("config", name, "true")
    into = tmp_path / "into"
    with git_http(origin.path.parent, modern=modern) as server:
        texts = checked_out(origin, into, f"{server.url}/origin")
    assert texts == {"flows/own.yaml": "own", "flows/linked.yaml": "shared"}
    fetched = origin.git(f"--git-dir={into}/.git", "cat-file", "--batch-all-objects", "--batch-check")
    blobs = [line.split()[0] for line in fetched.splitlines() if " blob " in line]
    assert len(blobs) == 3 if is_filtered else origin.git("rev-parse", "HEAD:large") in blobs


@pytest.mark.parametrize(
    "target",
    [
        *("../../outside", "/etc/hostname", "../up/outside", "../chain", "../shared dir", "linked.yaml"),
        *("../nope", "..", "../.git/config", "../shared dir/[x]*/more", "a\nb"),
    ],
)
def test_link_without_a_regular_file_is_refused(origin: Repository, tmp_path: Path, target: str) -> None:
    (origin.path / "flows" / "linked.yaml").symlink_to(target)
    origin.commit("file", "x")
    with pytest.raises(JobFailed, match=r"^flows/linked\.yaml is a link, but not to a regular file"):
        checked_out(origin, tmp_path / "into")


def test_link_targets_are_resolved() -> None:
    assert leads_to("a/b/link", "../c/./d") == "a/c/d"
    assert leads_to("link", "x") == "x"
    for target in ("..", "../x", "/x", ".", "x/../..", "x/../../y"):
        assert leads_to("link", target) is None, target
