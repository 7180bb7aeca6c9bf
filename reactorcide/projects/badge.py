"""The badge of a project: an image with the result of the last runs of a branch."""

from reactorcide.domain.accounts import User
from reactorcide.domain.runs import RunStatus
from reactorcide.jobs import StoredJobs, access

_COLOURS = {"passing": "#2e7d32", "failing": "#c62828", "no runs": "#616161"}
_MAX_RUNS = 200
_LABEL_PX, _STATE_PX = 37, 57
_SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img">
<title>build: {state}</title>
<rect width="{width}" height="20" rx="3" fill="#424242"/>
<path d="M{label} 0h{rest}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{rest}z" fill="{colour}"/>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">
<text x="{label_middle}" y="14">build</text>
<text x="{state_middle}" y="14">{state}</text>
</g>
</svg>
"""


def badge(context: StoredJobs, user: User, project_id: str, branch: str | None) -> str:
    """Return the badge of a project as SVG; ``None`` is its default branch. Raises ``NotFound``.

    It shows the last run of each workflow on that branch that has completed or failed.
    """
    project = access.project(context, user, project_id)
    runs = context.store.runs
    branch = branch or project.default_branch or runs.default_branch(project_id)
    last: dict[str, RunStatus] = {}
    if branch is not None:
        for run in runs.newest_of_branch(project_id, branch, limit=_MAX_RUNS):
            if run.status in (RunStatus.COMPLETED, RunStatus.FAILED):
                last.setdefault(run.workflow_id, run.status)
    if not last:
        return _svg("no runs")
    return _svg("failing" if RunStatus.FAILED in last.values() else "passing")


def _svg(state: str) -> str:
    width = _LABEL_PX + _STATE_PX
    return _SVG.format(
        state=state,
        colour=_COLOURS[state],
        width=width,
        label=_LABEL_PX,
        rest=_STATE_PX - 3,
        label_middle=_LABEL_PX / 2,
        state_middle=_LABEL_PX + _STATE_PX / 2,
    )
