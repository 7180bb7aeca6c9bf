"""The workflow files of an uploaded source."""

from collections.abc import Iterator
from time import monotonic

from reactorcide.domain.accounts import User
from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.errors import JobFailed
from reactorcide.domain.runs import Commit
from reactorcide.jobs import StoredJobs, sources
from reactorcide.lib.links import leads_to
from reactorcide.lib.tar import Entry
from reactorcide.workflows.definition import MAX_FILES
from reactorcide.workflows.files import JOBS_DIR, WORKFLOWS_DIR, is_file_of
from reactorcide.workflows.nodes import MAX_FILE_BYTES


def commit(context: StoredJobs, user: User, source_id: str, *, repository: str, deadline: float) -> Commit:
    """Return the workflow files of a source that ``user`` has uploaded, and record its use.

    ``repository`` is its name. Raises ``InvalidInput`` if the user has not uploaded it, and ``JobFailed`` if
    its files are not available by ``deadline`` (of ``time.monotonic``); ``Busy`` where too many sources are
    read until then.
    """
    definition = JobDefinition(
        name="run", job_command="true", source_type="copy", runner_image="none", source_id=source_id
    )
    sources.check(context, user, definition)
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    # It may be large, and is on this host.
    with context.source_checks.hold(user.user_id, sources.BUSY, timeout_s=deadline - monotonic()):
        for entry in _entries(context, definition, deadline):
            if not is_file_of(entry.path, WORKFLOWS_DIR, JOBS_DIR) or entry.kind == "directory":
                continue
            if len(files) + len(links) > 2 * MAX_FILES:
                break
            if entry.kind == "file":
                files[entry.path] = _content(entry)
            else:
                target = leads_to(entry.path, entry.target) if entry.kind == "symlink" else None
                links[entry.path] = target or ""
        if links:
            linked = {
                entry.path: _content(entry)
                for entry in _entries(context, definition, deadline)
                if entry.kind == "file" and entry.path in links.values()
            }
            for path, target in links.items():
                if target not in linked:
                    raise JobFailed(f"{path} is a link, but not to a regular file of the repository")
                files[path] = linked[target]
    return Commit(files=files, repository=repository)


def _entries(context: StoredJobs, definition: JobDefinition, deadline: float) -> Iterator[Entry]:
    for entry in sources.entries(context, definition) or ():
        if monotonic() > deadline:
            raise JobFailed("looking for workflow files in the uploaded source took too long")
        yield entry


def _content(entry: Entry) -> bytes:
    """Return the content of a file; of a too large one, enough for the reader to notice."""
    content = b""
    for chunk in entry.chunks:
        content += chunk
        if len(content) > MAX_FILE_BYTES + 1024:
            break
    return content
