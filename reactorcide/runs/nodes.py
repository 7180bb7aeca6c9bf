"""The nodes of a new run, with the definitions of their jobs."""

import os
from collections.abc import Mapping
from typing import Any

from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.projects import Project
from reactorcide.domain.runs import JobTemplate, Node, group_key
from reactorcide.jobs.run_secrets import secrets_in
from reactorcide.runs import RunContext
from reactorcide.runs.evaluate import Evaluation


def nodes_of(
    context: RunContext,
    evaluation: Evaluation,
    owner: str,
    environment: Mapping[str, str],
    project: Project | None,
    is_trusted: bool,
) -> tuple[list[tuple[Node, JobTemplate]], list[str]]:
    """Return the nodes of a run with the definitions of their jobs, and the errors in these."""
    nodes: list[tuple[Node, JobTemplate]] = []
    errors = list(evaluation.errors)
    for item in evaluation.nodes:
        try:
            template = _template(context, item, environment, project, is_trusted)
            context.jobs.rules.check_images(*_fixed_images(template))
        except InvalidInput as exc:
            errors.append(f"{evaluation.file}: the job {item['name']!r}: {exc}")
            continue
        nodes.append((_node(item, owner), template))
    if errors:
        return [], errors
    # Each job masks the secrets of all jobs.
    secrets = sorted({name for _, template in nodes for name in secrets_in(template)})
    return [(node, {**template, "secrets": secrets}) for node, template in nodes], []


def _node(item: Mapping[str, Any], owner: str) -> Node:
    return Node(
        name=item["name"],
        job_name=item["job_name"],
        needs=tuple(item["needs"]),
        condition=item["condition"],
        allow_failure=item["allow_failure"],
        max_parallel=item["max_parallel"],
        combination=item["combination"],
        skipped=item["skipped"],
        **group_of(item["concurrency"], owner),
    )


def group_of(concurrency: Mapping[str, str] | None, owner: str) -> dict[str, Any]:
    """Return the fields of a run or node for its concurrency group, which belongs to ``owner``."""
    if concurrency is None:
        return {}
    return {"group_key": group_key(owner, concurrency["group"]), "when_full": concurrency["when_full"]}


def _template(
    context: RunContext,
    item: Mapping[str, Any],
    environment: Mapping[str, str],
    project: Project | None,
    is_trusted: bool,
) -> JobTemplate:
    """Return the definition of a node's job, with every default filled in, so that a repetition is the
    same."""
    defaults = context.defaults
    fields = dict(item["fields"])
    if project is not None and project.default_image is not None:
        fields.setdefault("runner_image", project.default_image)
    if project is not None and not is_trusted:
        # Untrusted code uses only the project's queue.
        fields.pop("queue_name", None)
    if project is not None and project.queue is not None:
        fields.setdefault("queue_name", project.queue)
    fields.setdefault("runner_image", defaults.image)
    fields["cpu_limit"] = defaults.cpus(fields.get("cpu_limit"))
    fields["memory_limit_bytes"] = defaults.memory_bytes(fields.get("memory_limit_bytes"))
    if "code_dir" in fields:
        fields.setdefault("job_dir", fields["code_dir"])
    copied = ("services", "artifacts_from", "checkout", "submodules", "caches", "needs_builder")
    return {
        "fields": fields,
        "environment": item["environment"] | environment,
        "user": _user(item["local_user"]) if defaults.is_run_local else None,
        "buildkit_address": defaults.buildkit_address,
        **{name: item[name] for name in copied},
    }


def _user(name: str | None) -> str | None:
    """Return the engine's name of the user in ``run_local``."""
    of_runner = "1001:1001"  # the user of the original Reactorcide's image
    return {"host": f"{os.getuid()}:{os.getgid()}", "root": "0:0", "runner": of_runner}.get(name or "", name)


def _fixed_images(template: JobTemplate) -> tuple[str | None, dict[str, str]]:
    """Return the images of a job and its services that do not depend on outputs of other jobs."""
    image = template["fields"]["runner_image"]
    of_services = {name: service["image"] for name, service in template["services"].items()}
    fixed = {name: image for name, image in of_services.items() if isinstance(image, str)}
    return image if isinstance(image, str) else None, fixed
