"""The workflow files of an uploaded source."""

from time import monotonic

from reactorcide.domain.accounts import User
from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.errors import JobFailed
from reactorcide.domain.runs import Commit
from reactorcide.jobs import StoredJobs, sources
from reactorcide.workflows.definition import MAX_FILES
from reactorcide.workflows.files import JOBS_DIR, WORKFLOWS_DIR, is_file_of
from reactorcide.workflows.nodes import MAX_FILE_BYTES


def commit(context: StoredJobs, user: User, source_id: str, *, repository: str, deadline: float) -> Commit:
    """Return the workflow files of a source that ``user`` has uploaded, which is used now.

    ``repository`` is what it is called.
    Raises ``InvalidInput`` where they have uploaded none such, and ``JobFailed`` where its files cannot be
    had, or not by ``deadline`` (of ``time.monotonic``).
    """
    definition = JobDefinition(
        name="run", job_command="true", source_type="copy", runner_image="none", source_id=source_id
    )
    sources.check(context, user, definition)
    files: dict[str, bytes] = {}
    # It may be large, and is on this host.
    with context.source_checks:
        for entry in sources.entries(context, definition) or ():
            if monotonic() > deadline:
                raise JobFailed("looking for workflow files in the uploaded source took too long")
            if not is_file_of(entry.path, WORKFLOWS_DIR, JOBS_DIR):
                continue
            if entry.kind != "file":
                if entry.kind != "directory":
                    raise JobFailed(f"{entry.path} is a link; a workflow file has to be a file itself")
                continue
            if len(files) > 2 * MAX_FILES:
                break
            content = b""
            for chunk in entry.chunks:
                content += chunk
                if len(content) > MAX_FILE_BYTES + 1024:
                    break
            files[entry.path] = content
    return Commit(files=files, repository=repository)
