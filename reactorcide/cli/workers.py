"""``reactorcide workers``: list the workers, and add, drain and forget those on other machines."""

import click

from reactorcide.cli import render
from reactorcide.cli.connect import connect


@click.group()
def workers() -> None:
    """Add, list, drain and forget workers."""


@workers.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer as JSON.")
def list_workers(as_json: bool) -> None:
    """List the workers."""
    with connect() as client:
        answer = client.workers()
    if as_json:
        render.as_json({"workers": answer})
        return
    render.table(
        ("ID", "HOST", "JOBS", "QUEUES", "SEEN", "STATE"),
        [
            (
                item["worker_id"],
                item["host"],
                f"{len(item['running_jobs'])}/{item['concurrency']}",
                ",".join(item["queues"]) or "all",
                render.age(item["last_seen_at"]),
                item["trouble"] or "takes jobs",
            )
            for item in answer
        ],
        flexible="STATE",
    )


@workers.command()
@click.argument("name")
@click.option("--queue", "queues", multiple=True, help="Queue to bind it to; repeatable. All by default.")
def add(name: str, queues: tuple[str, ...]) -> None:
    """Add a worker on another machine, and print its registration token; for admins.

    The token is valid once, for a day: reactorcide worker --server URL --token TOKEN
    """
    with connect() as client:
        added = client.add_worker(name, queues)
    render.say(added["token"])
    render.say(
        f"worker {added['worker_id']}; on its machine: reactorcide worker --server URL --token …", err=True
    )


@workers.command()
@click.argument("worker_id", metavar="WORKER")
def drain(worker_id: str) -> None:
    """Have a worker finish its jobs and take no more; for admins."""
    with connect() as client:
        client.change_worker(worker_id, "drain")
    render.say(f"{worker_id} takes no more jobs; again with: reactorcide workers resume {worker_id}")


@workers.command()
@click.argument("worker_id", metavar="WORKER")
def resume(worker_id: str) -> None:
    """Have a drained worker take jobs again; for admins."""
    with connect() as client:
        client.change_worker(worker_id, "resume")
    render.say(f"{worker_id} takes jobs")


@workers.command()
@click.argument("worker_id", metavar="WORKER")
def forget(worker_id: str) -> None:
    """Forget a worker, whose secret is refused from then on; for admins."""
    with connect() as client:
        client.forget_worker(worker_id)
    render.say(f"{worker_id} is forgotten")
