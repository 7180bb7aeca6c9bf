"""Preparing the source of a job for its container."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import field
from itertools import chain
from pathlib import Path

from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.errors import InfrastructureError, InvalidInput, JobFailed
from reactorcide.domain.git_access import GitAccess
from reactorcide.domain.jobs import ARTIFACTS_DIR, CI_DIR, NEEDS_DIR, OUTPUT_FILE, VARIABLES_FILE, Job
from reactorcide.domain.runs import Commit, Comparison, RunFiles
from reactorcide.lib.clock import now_ms
from reactorcide.lib.records import record
from reactorcide.lib.tar import END, Entry, write_entry
from reactorcide.network.addresses import AddressRules
from reactorcide.sources.archive import archive, empty_directories
from reactorcide.sources.git import GitCheckout, GitLimits, check_out_folders, checkout
from reactorcide.sources.git.session import Refusal
from reactorcide.sources.repack import repack
from reactorcide.sources.roots import Identity, SourceDirectory, SourceRoots
from reactorcide.sources.rules import SourceRules
from reactorcide.worker.interrupt import Interrupt
from reactorcide.worker.port import WorkerPort
from reactorcide.workflows.definition import MAX_FILES
from reactorcide.workflows.files import JOBS_DIR, WORKFLOWS_DIR, is_file_of
from reactorcide.workflows.nodes import MAX_FILE_BYTES

_PATHS = b"paths"
"""The key of a workflow that needs the changed files."""


@record
class Source:
    """The files and variables for a container."""

    code_dir: str
    job_dir: str
    directory: SourceDirectory | None
    """The directory of the files; ``None`` for an empty workspace."""
    forbidden: Identity | None
    check: Callable[[], None]
    """Raises an error to stop early."""
    env: Mapping[str, str] = field(default_factory=dict)
    entries: Iterator[Entry] | None = None
    """The files as tar entries, if they are not in a directory."""
    of_run: RunFiles | None = None
    """The further files of a job of a run."""
    ci_directory: SourceDirectory | None = None
    """Of a job of a run: the commit of its workflow file, where that is not the source's."""

    def tar(self, owner: Callable[[], tuple[int, int]]) -> Iterator[bytes] | None:
        """Return the files as a tar stream, ``None`` if there are none.

        The engine creates the directories of a job, owned by root. For another user they are in the tar, too;
        only the job's own, so that no directory of the image changes its owner.
        """
        uid, gid = owner()
        own = []
        if uid != 0:
            inside = (self.code_dir + "/", "/job/")
            own = [path for path in (self.code_dir, self.job_dir) if (path + "/").startswith(inside)]
            own.append(ARTIFACTS_DIR)
        parts: list[Iterable[bytes]] = [empty_directories(own, uid, gid)] if own else []
        if self.entries is not None:
            parts.append(repack(self.entries, prefix=self.code_dir, uid=uid, gid=gid, check=self.check))
        elif self.directory is not None:
            files = archive(
                self.directory,
                prefix=self.code_dir,
                uid=uid,
                gid=gid,
                forbidden=self.forbidden,
                check=self.check,
            )
            parts.append(files)
        of_run = self.of_run
        if of_run is not None:
            if self.has_files and not (self.code_dir + "/").startswith(CI_DIR + "/"):
                parts.append(self._ci(uid, gid))
            if of_run.artifacts is not None:
                needed = repack(of_run.artifacts, prefix=NEEDS_DIR, uid=uid, gid=gid, check=self.check)
                parts.append(needed)
            # Without other files to put into the container, these would take a fifth of the job's time.
            if parts or of_run.variables:
                parts.append(_file(VARIABLES_FILE, json.dumps(dict(of_run.variables)).encode(), uid, gid))
                parts.append(_file(OUTPUT_FILE, b"", uid, gid))
        return chain(*parts, [END]) if parts else None

    @property
    def has_files(self) -> bool:
        """Return whether there is a source, and not an empty workspace."""
        return self.entries is not None or self.directory is not None

    def _ci(self, uid: int, gid: int) -> Iterator[bytes]:
        if self.ci_directory is not None:
            return archive(self.ci_directory, prefix=CI_DIR, uid=uid, gid=gid, check=self.check)
        link = Entry(path=CI_DIR, kind="symlink", target=self.code_dir, modified_s=now_ms() // 1000)
        return write_entry(link, CI_DIR.strip("/"), uid=uid, gid=gid)


class Preparation:
    """Prepares sources, in temporary directories below ``workspaces_dir``. Thread-safe.

    ``allow_images`` are globs of the images that jobs may use; without any, all may be used.
    ``is_admin`` tells whether the user with an id is an active admin; ``addresses`` are the rules for the
    jobs of all others.
    """

    def __init__(
        self,
        roots: SourceRoots,
        workspaces_dir: Path,
        environment: Mapping[str, str],
        allow_images: Sequence[str] = (),
        *,
        is_admin: Callable[[str], bool] = lambda user_id: False,
        addresses: AddressRules | None = None,
        git_limits: GitLimits | None = None,
    ) -> None:
        self._roots = roots
        self._workspaces_dir = workspaces_dir
        self._environment = environment
        self.rules = SourceRules(roots, allow_images)
        self._is_admin = is_admin
        self._addresses = addresses or AddressRules()
        self._git_limits = git_limits or GitLimits()

    def image(self, definition: JobDefinition) -> str:
        """Return the image name for the engine; raises ``JobFailed`` if the image may not be used."""
        return self.rules.image(definition)

    def commit(
        self,
        git_url: str,
        git_ref: str | None,
        user_id: str,
        *,
        deadline: float,
        comparison: Comparison | None = None,
        access: GitAccess | None = None,
        asks_reachable: bool = False,
    ) -> Commit:
        """Return the workflow files of a commit; see ``runs.Commits``."""
        self._roots.check_git_url(git_url)
        with self._workspace("run-") as workspace:
            folders = check_out_folders(
                git_url,
                git_ref,
                workspace,
                (WORKFLOWS_DIR, JOBS_DIR),
                is_selected=lambda path: is_file_of(path, WORKFLOWS_DIR, JOBS_DIR),
                max_paths=2 * MAX_FILES + 1,
                interrupt=Interrupt(),
                deadline=deadline,
                env=self._environment,
                limits=self._git_limits,
                refusal=self._refusal(user_id),
                comparison=comparison,
                access=access,
                asks_reachable=asks_reachable,
                is_compared=lambda paths: any(_PATHS in _read_file(workspace / path) for path in paths),
            )
            files = {path: _read_file(workspace / file) for path, file in folders.paths.items()}
        repository = git_url.rstrip("/").rpartition("/")[2].rpartition(":")[2].removesuffix(".git")
        return Commit(
            files=files,
            repository=repository,
            sha=folders.sha,
            branch=folders.branch,
            default_branch=folders.default_branch,
            tag=folders.tag,
            message=folders.message,
            is_reachable=folders.is_reachable,
            changed=folders.changed,
        )

    def _refusal(self, user_id: str) -> Refusal | None:
        return None if self._is_admin(user_id) else self._addresses.refusal

    @contextmanager
    def source(
        self,
        port: WorkerPort,
        job: Job,
        log: Callable[[bytes], None],
        interrupt: Interrupt,
        deadline: float,
        check: Callable[[], None],
    ) -> Iterator[Source]:
        """Yield the job's source; its temporary files are removed afterwards.

        ``deadline`` is by ``time.monotonic``; ``check`` raises an error to stop early. Raises ``JobFailed``
        if the source cannot be used, ``JobInterrupted``, ``InfrastructureError``.
        """
        definition = job.definition
        try:
            # Also checked at submission, but roots and links may have changed since.
            self.rules.check_source(definition)
        except InvalidInput as exc:
            raise JobFailed(f"the source cannot be used any more: {exc}") from exc
        of_run = port.run_files(job)
        if definition.source_type == "git":
            of = (port, job, log, interrupt, deadline)
            with ExitStack() as stack:
                directory, revision = stack.enter_context(self._checked_out(definition.git_ref, *of))
                ci_directory = None
                if of_run is not None and of_run.ci_sha is not None:
                    ci_directory, _ = stack.enter_context(self._checked_out(of_run.ci_sha, *of))
                yield Source(
                    definition.code_dir,
                    definition.job_dir,
                    directory,
                    None,
                    check=check,
                    env={
                        "REACTORCIDE_GIT_URL": revision.url_without_credentials,
                        "REACTORCIDE_GIT_REF": revision.ref,
                        "REACTORCIDE_GIT_SHA": revision.sha,
                    },
                    of_run=of_run,
                    ci_directory=ci_directory,
                )
            return
        path = definition.source_path
        yield Source(
            definition.code_dir,
            definition.job_dir,
            None if path is None else self._roots.resolve(path),
            self._roots.forbidden_identity(),
            check=check,
            entries=port.source(job),
            of_run=of_run,
        )

    @contextmanager
    def _workspace(self, prefix: str) -> Iterator[Path]:
        """Yield an empty directory, which is removed afterwards; raises ``InfrastructureError``."""
        try:
            self._workspaces_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._workspaces_dir, prefix=prefix) as workspace:
                yield Path(workspace)
        except OSError as exc:
            raise InfrastructureError(f"the directory of a checkout cannot be used: {exc}") from exc

    @contextmanager
    def _checked_out(
        self,
        ref: str | None,
        port: WorkerPort,
        job: Job,
        log: Callable[[bytes], None],
        interrupt: Interrupt,
        deadline: float,
    ) -> Iterator[tuple[SourceDirectory, GitCheckout]]:
        """Yield a ref of a job's repository in a directory, which is removed afterwards."""
        definition = job.definition
        with self._workspace(f"{job.job_id}-") as workspace:
            revision = checkout(
                definition.git_url or "",
                ref,
                workspace,
                log=log,
                interrupt=interrupt,
                deadline=deadline,
                env=self._environment,
                # Submodules are subject to the same rules as the job's own URL.
                check_submodule=self._roots.check_git_url if definition.git_submodules else None,
                depth=definition.git_depth,
                tags=definition.git_tags,
                limits=self._git_limits,
                refusal=self._refusal(job.user_id),
                shares_credentials=port.is_trusted(job),
                access=port.git_access(job),
            )
            # The workspace is in the data directory, and is the only part of it that a job may read.
            yield SourceDirectory(workspace), revision


def _file(path: str, content: bytes, uid: int, gid: int) -> Iterator[bytes]:
    entry = Entry(
        path=path, kind="file", size_bytes=len(content), chunks=[content], modified_s=now_ms() // 1000
    )
    return write_entry(entry, path.strip("/"), uid=uid, gid=gid)


def _read_file(path: Path) -> bytes:
    """Return a file of a checkout; of a too large one, enough for the reader to notice."""
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1024)
