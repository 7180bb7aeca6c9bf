"""The sources of jobs: git, a directory of this host, or none."""

import os
from pathlib import Path

import pytest

from tests.conftest import NewService
from tests.sources.support import Repository, git_http
from tests.support.client import Client
from tests.support.service import Service

SHOW = "cat file; git_dir=$(ls -d .git); echo $git_dir; env | grep ^REACTORCIDE_GIT | sort"


@pytest.fixture(scope="session")
def project(service: Service) -> Repository:
    """A repository below the shared service's source root, with a branch and a tag beside main."""
    repository = Repository(service.source_root / "project")
    repository.commit("file", "first\n")
    repository.git("tag", "v1")
    repository.git("checkout", "--quiet", "-b", "topic/x")
    repository.commit("file", "topic\n")
    repository.git("checkout", "--quiet", "main")
    repository.commit("file", "main\n")
    return repository


@pytest.mark.parametrize(
    ("git_ref", "content", "variable"),
    [
        (None, "main", "main"),
        ("topic/x", "topic", "topic/x"),
        ("v1", "first", "v1"),
        ("refs/heads/topic/x", "topic", "topic/x"),
        ("{sha}", "first", "{sha}"),
    ],
)
def test_git_job_works_on_its_ref(
    api: Client, project: Repository, git_ref: str | None, content: str, variable: str
) -> None:
    url = f"file://{project.path}"
    sha = project.git("rev-parse", "v1")
    job = api.run(SHOW, source_type="git", git_url=url, git_ref=git_ref and git_ref.format(sha=sha))
    assert job["status"] == "completed", api.log(job)
    expected = project.git("rev-parse", {"main": "main", "topic": "topic/x", "first": "v1"}[content])
    # The output of git comes first.
    assert api.log(job).decode().splitlines()[-5:] == [
        content,
        ".git",
        f"REACTORCIDE_GIT_REF={variable.format(sha=sha)}",
        f"REACTORCIDE_GIT_SHA={expected}",
        f"REACTORCIDE_GIT_URL={url}",
    ]


def test_unreferenced_commit_is_fetched(api: Client, project: Repository) -> None:
    parent = project.git("rev-parse", "main~0")
    project.commit("file", "later\n")
    with git_http(project.path.parent, modern=False) as server:
        job = api.run("cat file", source_type="git", git_url=f"{server.url}/project/.git", git_ref=parent)
    project.git("reset", "--quiet", "--hard", parent)
    assert job["status"] == "completed", api.log(job)
    assert api.log(job).endswith(b"main\n")


def test_history_and_tags_are_fetched_on_request(api: Client, project: Repository) -> None:
    show = "if [ -e .git/shallow ]; then echo shallow; else echo whole; fi; ls .git/refs/tags"
    source = {"source_type": "git", "git_url": f"file://{project.path}"}
    assert api.log(api.run(show, **source)).endswith(b"shallow\n")
    job = api.run(show, **source, git_depth=0, git_tags=True)
    assert api.log(job).endswith(b"whole\nv1\n")


def test_git_urls_of_this_host_are_for_admins_only(new_service: NewService, project: Repository) -> None:
    """The role counts that the user has when the job is prepared, not when it was submitted."""
    service = new_service()
    bob = service.add_user("bob")
    with git_http(project.path.parent) as server:
        source = {"source_type": "git", "git_url": f"{server.url}/project/.git"}
        assert service.admin.run("cat file", **source)["status"] == "completed"
        job = bob.run("cat file", **source)
        assert job["status"] == "failed"
        assert "only the jobs of admins may reach" in job["error"]
        assert "--allow-address 127.0.0.1" in job["error"]
        user_id = job["user_id"]
        for role, status in (("admin", "completed"), ("user", "failed")):
            change = service.admin.request("PATCH", f"users/{user_id}", json={"role": role})
            assert change.status_code == 200, change.text
            assert bob.run("cat file", **source)["status"] == status
        allowing = new_service(allow_address="127.0.0.0/8")
        assert allowing.add_user("bob").run("cat file", **source)["status"] == "completed"


def test_fetched_data_counts_for_the_disk_limit(new_service: NewService) -> None:
    service = new_service(max_disk="4m")
    repository = Repository(service.source_root / "large")
    (repository.path / "large").write_bytes(os.urandom(6 << 20))
    repository.commit("file", "x")
    job = service.admin.run(source_type="git", git_url=str(repository.path))
    assert job["error"] == "git: the source takes more than 4 MiB of the disk (--max-disk)"
    assert not any((service.data_dir / "workspaces").iterdir())


def test_missing_ref_is_reported(api: Client, project: Repository) -> None:
    job = api.run(source_type="git", git_url=str(project.path), git_ref="nowhere")
    assert (job["status"], job["exit_code"]) == ("failed", None)
    assert "nowhere" in job["error"]
    assert job["error"].encode() in api.log(job)


def test_submodules_are_checked_out(api: Client, project: Repository) -> None:
    module = Repository(project.path.parent / "module")
    sha = module.commit("inner", "of the module\n")
    outer = Repository(project.path.parent / "outer")
    outer.git("update-index", "--add", "--cacheinfo", f"160000,{sha},lib/module")
    (outer.path / "lib" / "module").mkdir(parents=True)
    outer.commit(".gitmodules", '[submodule "m"]\n\tpath = lib/module\n\turl = ../module\n')
    source = {"source_type": "git", "git_url": str(outer.path)}
    job = api.run("cat lib/module/inner; ls -A lib/module", **source)
    assert job["status"] == "completed", api.log(job)
    assert api.log(job).endswith(b"of the module\n.git\ninner\n")
    outer.commit(".gitmodules", '[submodule "m"]\n\tpath = lib/module\n\turl = /etc\n')
    job = api.run(**source)
    assert job["error"] == (
        'git: submodule "lib/module": its url must lead to a repository below '
        "one of the server's source roots"
    )
    job = api.run("ls -A lib/module | wc -l", **source, git_submodules=False)
    assert api.log(job).endswith(b"0\n")


def test_a_password_in_the_url_is_in_no_log(service: Service, project: Repository) -> None:
    with git_http(project.path.parent, login="me:secret-word") as server:
        url = f"http://me:secret-word@{server.host}/project/.git"
        job = service.admin.run("cat file; env", source_type="git", git_url=url)
    assert job["status"] == "completed", service.admin.log(job)
    assert b"main\n" in service.admin.log(job)
    assert b"secret-word" not in service.admin.log(job)
    assert "secret-word" not in service.log_text()


def test_work_tree_is_removed_with_the_end_of_its_job(service: Service, project: Repository) -> None:
    assert service.admin.run(source_type="git", git_url=str(project.path))["status"] == "completed"
    assert not any((service.data_dir / "workspaces").iterdir())


def test_directory_is_copied_unchanged(service: Service) -> None:
    source = service.source_root / "tree"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "dat\xe4").write_bytes(b"\0\xff")
    (source / "script").write_text("#!/bin/sh\necho ran\n")
    (source / "script").chmod(0o750)
    (source / "link").symlink_to("/etc/hostname")
    os.utime(source / "sub" / "dat\xe4", (0, 1_000_000_000))
    job = service.admin.run(
        "./script; readlink link; od -An -tx1 sub/*; stat -c '%a %Y' script sub/*; find . | sort",
        source_path="tree",
    )
    lines = service.admin.log(job).decode().splitlines()
    assert lines[:3] == ["ran", "/etc/hostname", " 00 ff"]
    assert lines[3].startswith("750 ")
    assert lines[4].endswith(" 1000000000")
    assert lines[5:] == [".", "./link", "./script", "./sub", "./sub/dat\xe4"]


def test_directory_is_copied_to_code_dir(service: Service) -> None:
    (service.source_root / "placed").mkdir()
    (service.source_root / "placed" / "file").write_text("here\n")
    job = service.admin.run(
        "cat /deep/er/file; pwd", source_path="placed", code_dir="/deep/er", job_dir="/deep"
    )
    assert service.admin.log(job) == b"here\n/deep\n"


def test_without_a_source_the_workspace_is_empty(api: Client) -> None:
    job = api.run("ls -A; pwd")
    assert api.log(job) == b"/job/src\n"


def test_paths_outside_of_the_roots_are_refused_in_every_spelling(service: Service, tmp_path: Path) -> None:
    root = service.source_root
    (root / "way-out").symlink_to(tmp_path)
    (root / "a-file").write_text("")
    for path in ("..", "/", str(tmp_path), "way-out", "a-file", f"{root}/../../..", "x/../../.."):
        assert service.admin.post_job(source_path=path).status_code == 400, path
    repository = Repository(tmp_path / "outside")
    repository.commit("file", "secret\n")
    for url in (str(repository.path), f"file://{repository.path}", f"{root}/way-out/outside"):
        assert service.admin.post_job(source_type="git", git_url=url).status_code == 400, url


def test_the_data_directory_is_never_copied(
    new_service: NewService, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # A root may hold the data directory, but not the home.
    service = new_service({"HOME": str(tmp_path_factory.mktemp("home"))}, source_root=tmp_path)
    # A link to it, so that its path says nothing.
    (tmp_path / "elsewhere").symlink_to(service.data_dir)
    for path in (service.data_dir, service.data_dir / "objects", "elsewhere"):
        assert service.admin.post_job(source_path=str(path)).status_code == 400, path
    (tmp_path / "file").write_text("")
    job = service.admin.run(
        "find . -name admin-token; find . -name '*.db'; ls file", source_path=str(tmp_path)
    )
    assert (job["status"], service.admin.log(job)) == ("completed", b"file\n")
