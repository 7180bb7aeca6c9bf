"""``python -m benchmarks``: all figures and their targets, in one run on one machine."""

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import (
    caches,
    deliveries,
    footprint,
    jobs,
    million,
    page,
    postgresql,
    remote,
    runs,
    throughput,
    workflows,
)
from benchmarks.figures import Figure


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--image", default="alpine:latest", show_default=True, help="Image to run, present on the engine."
)
@click.option("--quick", is_flag=True, help="Few samples: checks that it works, not how fast.")
@click.option("--only", multiple=True, metavar="NAME", help="Only this measurement; may be repeated.")
@click.option(
    "--json", "report", type=click.Path(path_type=Path, dir_okay=False), help="Also write a report."
)
def main(image: str, quick: bool, only: tuple[str, ...], report: Path | None) -> None:
    """Measure Reactorcide against the plain Docker Engine of this machine, and show each target.

    Exits with 1 if a target is missed.
    """
    measures: dict[str, Callable[[], Figure | list[Figure]]] = {
        "one-job": partial(jobs.one_job, image, quick=quick),
        "source": partial(jobs.source, image, quick=quick),
        "time-to-start": partial(jobs.time_to_start, image, quick=quick),
        "many-jobs": partial(jobs.many_jobs, image, quick=quick),
        "service": partial(jobs.service_to_command, image, quick=quick),
        "log": partial(jobs.log_throughput, image, quick=quick),
        "logs": partial(jobs.log_throughput, image, quick=quick, jobs=4),
        "masked-log": partial(jobs.log_throughput, image, quick=quick, secrets=12),
        "submissions": partial(throughput.submissions, image, quick=quick),
        "claims": partial(throughput.claims, quick=quick),
        "lists": partial(million.lists, quick=quick),
        "scrape": partial(million.scrape, quick=quick),
        "workflow": partial(workflows.evaluation, quick=quick),
        "run": partial(runs.layers, image, quick=quick),
        "dependent": partial(runs.to_dependent, image, quick=quick),
        "delivery": partial(deliveries.acceptance, quick=quick),
        "delivery-to-claim": partial(deliveries.to_claim, image, quick=quick),
        "deliveries": partial(deliveries.lists, quick=quick),
        "cache-saved": partial(caches.saved, image, quick=quick),
        "cache-restored": partial(caches.restored, image, quick=quick),
        "page-first": partial(page.first_page, image, quick=quick),
        "page-log": partial(page.large_log, image, quick=quick),
        "page-live": partial(page.live_log, image, quick=quick),
        "remote-job": partial(remote.one_job, image, quick=quick),
        "remote-log": partial(remote.log_throughput, image, quick=quick),
        "idle-workers": partial(remote.idle_workers, quick=quick),
        "submissions-postgresql": partial(postgresql.submissions, image, quick=quick),
        "lists-postgresql": partial(postgresql.lists, quick=quick),
        "memory": partial(footprint.idle_memory, image, quick=quick),
        "start": partial(footprint.cold_start, quick=quick),
    }
    if unknown := set(only) - set(measures):
        raise click.UsageError(f"there is no {', '.join(sorted(unknown))}; there is: {', '.join(measures)}")
    if shutil.which("docker") is None:
        raise click.ClickException("the docker command is not installed; the benchmarks compare with it")
    figures: list[Figure] = []
    for name, measure in measures.items():
        if not only or name in only:
            click.echo(f"Measuring {name} ...", err=True)
            measured = measure()
            figures += measured if isinstance(measured, list) else [measured]
    # Without a terminal rich assumes a width that is too narrow.
    Console(width=None if sys.stdout.isatty() else 120).print(_table(figures))
    if report is not None:
        content = {
            "machine": f"{os.cpu_count()} CPUs, {platform.platform()}, Python {platform.python_version()}",
            "load_average": os.getloadavg(),
            "quick": quick,
            "figures": [figure.to_json() for figure in figures],
        }
        report.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if not all(figure.met for figure in figures):
        raise SystemExit(1)


def _table(figures: list[Figure]) -> Table:
    table = Table(title=f"Medians, on {os.cpu_count()} CPUs", title_justify="left", box=box.SIMPLE)
    table.add_column("measurement", no_wrap=True)
    for heading in ("Reactorcide", "plain Docker", "figure", "target"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("met")
    for figure in figures:
        table.add_row(
            figure.name,
            f"{_number(figure.ours)} {figure.unit}",
            "" if figure.bare is None else f"{_number(figure.bare)} {figure.unit}",
            f"{_number(figure.value)} {figure.value_unit}",
            f"{'≥' if figure.at_least else '≤'} {figure.mark:g}",
            "yes" if figure.met else "NO",
        )
    return table


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
