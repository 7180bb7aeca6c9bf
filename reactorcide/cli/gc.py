"""``reactorcide gc``: apply retention, directly on the data directory.

It works with and without a running service. A running service applies retention by itself.
"""

from typing import Any

import click

from reactorcide.cli import render
from reactorcide.cli.options import settings_from, settings_options
from reactorcide.domain.audit import operator
from reactorcide.jobs import retention
from reactorcide.lib.clock import rfc3339
from reactorcide.lib.sizes import format_size


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_options("data_dir", "database", "keep_jobs", "keep_days", "keep_bytes")
def gc(dry_run: bool, as_json: bool, **options: Any) -> None:
    """Remove the jobs that retention does not keep, directly in the database.

    Unfinished and pinned jobs stay. The jobs of a run are removed together, with the run. Give the same
    --keep options as to the service.
    """
    from reactorcide.app.operator import open_jobs
    from reactorcide.app.parts import keep_policy

    settings = settings_from(options)
    policy = keep_policy(settings)
    with open_jobs(settings) as context:
        removals = (
            retention.plan(context, policy) if dry_run else retention.apply(context, policy, by=operator())
        )
    size_bytes = sum(item.size_bytes for item in removals)
    if as_json:
        render.as_json(
            {
                "dry_run": dry_run,
                "size_bytes": size_bytes,
                "jobs": [
                    {
                        "job_id": item.job_id,
                        "run_id": item.run_id,
                        "completed_at": rfc3339(item.completed_at_ms),
                        "size_bytes": item.size_bytes,
                        "reason": item.reason,
                    }
                    for item in removals
                ],
            }
        )
        return
    render.table(
        ("ID", "FINISHED", "SIZE", "WHY"),
        [
            (item.job_id, rfc3339(item.completed_at_ms), format_size(item.size_bytes), item.reason)
            for item in removals
        ],
        flexible="WHY",
    )
    done = "would be removed" if dry_run else "removed"
    render.say(f"{len(removals)} jobs of {format_size(size_bytes)} {done}", err=True)
