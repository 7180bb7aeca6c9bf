"""The evaluation of a workflow for an event: a separate program, so that it can be stopped.

It reads a request as JSON from its input and writes the graph of the run, or what is wrong, as JSON to its
output. A file of 256 KiB takes a second or two to be read, and what an attacker writes takes longer.
"""

import base64
import json
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from typing import Any

from reactorcide.domain.caches import FILE_PREFIX, HASH_DIGITS, MAX_KEY_BYTES
from reactorcide.domain.events import EventName
from reactorcide.lib.programs import limit_memory
from reactorcide.workflows.definition import Definition, check
from reactorcide.workflows.events import Event
from reactorcide.workflows.files import JOBS_DIR, is_file_of
from reactorcide.workflows.graph import Graph, Node
from reactorcide.workflows.model import Cache, Concurrency, Job, Service
from reactorcide.workflows.problems import WorkflowError
from reactorcide.workflows.references import Template

Json = dict[str, Any]

_MAX_MEMORY_BYTES = 1 << 30
MAX_ANSWER_CHARS = 32 << 20
"""Maximum size of the definitions of all jobs of an evaluation."""
_EVENT_FIELDS = frozenset(field.name for field in fields(Event))


def evaluate(request: Json) -> Json:
    """Return the graph of each run; see ``Evaluator`` for the input and output."""
    files = {path: base64.b64decode(content) for path, content in request["files"].items()}
    # A run's event has more fields than workflow files can use.
    about = {name: value for name, value in request["event"].items() if name in _EVENT_FIELDS}
    event = Event(**about | {"name": EventName(about["name"])})
    if request["all"]:
        definitions = [one for one in check(files, request["repository"]) if one.answers(event)]
    else:
        chosen = choose(files, request["repository"], request["workflow"])
        if isinstance(chosen, str):
            return {"refused": chosen}
        definitions = [chosen]
    workflows: list[Json] = []
    remaining_chars = MAX_ANSWER_CHARS
    for one in definitions:
        answer = _evaluated(one, files, event, request, remaining_chars)
        if isinstance(answer, str):
            return {"refused": answer}
        remaining_chars -= len(json.dumps(answer["nodes"], ensure_ascii=False))
        workflows.append(answer)
    return {"workflows": workflows}


def _evaluated(
    chosen: Definition, files: Mapping[str, bytes], event: Event, request: Json, max_chars: int
) -> Json | str:
    """Return the graph of a run of one workflow, or the error of the request."""
    changed = request["changed"]
    answer: Json = {
        "id": chosen.id,
        "is_readable": chosen.is_readable,
        "name": chosen.name,
        "file": chosen.file,
        "files": [
            path
            for path in files
            if path in (chosen.file, request["workflow"])
            or (chosen.file == JOBS_DIR and request["workflow"] not in files)
        ],
        "warnings": [str(problem) for problem in chosen.problems if problem.is_warning],
        "errors": [str(problem) for problem in chosen.errors],
        "skipped": None,
        "vars": {},
        "nodes": [],
        "concurrency": None,
    }
    if answer["errors"]:
        return answer
    answer["skipped"] = chosen.refusal(event, changed)
    try:
        graph = chosen.expand(event, changed, request["vars"], request["env"])
    except WorkflowError as exc:
        return answer | {"errors": str(exc).splitlines()}
    selected = select_jobs(graph, request["jobs"])
    if isinstance(selected, str):
        return selected
    graph = selected
    answer["vars"] = dict(graph.variables)
    answer["concurrency"] = _concurrency(graph.concurrency)
    for node in graph.nodes:
        answer["errors"] += _unknown(chosen.file, node)
    if not answer["errors"] and answer["skipped"] is None:
        answer["nodes"] = _bounded(map(_node, graph.nodes), answer["errors"], chosen.file, max_chars)
    return answer


def choose(files: Mapping[str, bytes], repository: str, workflow: str | None) -> Definition | str:
    """Return the workflow with an id or file, or an error if there is none.

    A named job file is a workflow with only that job.
    """
    if workflow is not None and workflow in files and is_file_of(workflow, JOBS_DIR):
        return check({workflow: files[workflow]}, repository)[0]
    definitions = check(files, repository)
    if not definitions:
        return "there is no workflow file in .reactorcide/workflows or .reactorcide/jobs"
    # Too many files are reported as one workflow without an id.
    if len(definitions) == 1 and (workflow is None or not definitions[0].id):
        return definitions[0]
    choices = ", ".join(sorted(one.id or one.file for one in definitions)[:20])
    if workflow is None:
        return f"there is more than one workflow, so name one of them: {choices}"
    for one in definitions:
        if workflow in (one.id, one.file, one.file.rpartition("/")[2]):
            return one
    return f"there is no workflow {workflow!r}; there is {choices}"


def select_jobs(graph: Graph, jobs: Collection[str] | None) -> Graph | str:
    """Return the graph in which all are skipped but some jobs (``None``: all) and those that they need.

    If some of them are missing, a sentence about them is returned instead.
    """
    if jobs is None:
        return graph
    unknown = [name for name in jobs if name not in graph.by_job]
    if not unknown:
        return graph.only(jobs)
    choices = ", ".join(list(graph.by_job)[:20])
    return f"the workflow has no job {', '.join(map(repr, unknown[:20]))}; it has {choices}"


def _unknown(file: str, node: Node) -> list[str]:
    """Return the unavailable features that a node uses."""
    who = f"the job {node.name!r}"
    problems = [
        f"{file}: {who} has the reference {reference}, which has a value in a "
        "local run alone, as by reactorcide run --env"
        for template in node.job.templates()
        for reference in template.references
        if reference.source == "env"
    ]
    for cache in node.job.cache:
        key_bytes = sum(
            HASH_DIGITS if part.startswith(FILE_PREFIX) else len(part.encode()) + 1
            for part in (part.fill(str) for part in cache.key)
        )
        if key_bytes > MAX_KEY_BYTES:
            problems.append(f"{file}: {who} has a cache whose key is longer than {MAX_KEY_BYTES} bytes")
    return problems


def _bounded(nodes: Iterable[Json], errors: list[str], file: str, max_chars: int) -> list[Json]:
    bounded = []
    chars = 0
    for node in nodes:
        chars += len(json.dumps(node, ensure_ascii=False))
        if chars > max_chars:
            errors.append(
                f"{file}: its jobs, with those of the workflows that start with it, are larger than "
                f"{MAX_ANSWER_CHARS >> 20} MiB"
            )
            return []
        bounded.append(node)
    return bounded


def _node(node: Node) -> Json:
    job = node.job
    return {
        "name": node.name,
        "job_name": node.job_name,
        "needs": list(job.needs),
        "condition": job.condition,
        "allow_failure": job.allow_failure,
        "max_parallel": node.max_parallel,
        "combination": dict(node.combination),
        "skipped": node.skipped,
        "fields": _fields(node.name, job),
        "environment": _environment(job.environment),
        "services": {name: _service(service) for name, service in job.services.items()},
        "artifacts_from": list(job.artifacts_from),
        "checkout": job.checkout,
        "submodules": job.submodules is not False,
        "caches": [_cache(cache) for cache in job.cache],
        "concurrency": _concurrency(job.concurrency),
        "needs_builder": job.needs_builder,
        "local_user": None if job.run_local is None else job.run_local.user,
    }


def _cache(cache: Cache) -> Json:
    return {
        "key": [part.fill(str) for part in cache.key],
        "paths": list(cache.paths),
        "restore_keys": [key.fill(str) for key in cache.restore_keys],
    }


def _concurrency(concurrency: Concurrency | None) -> Json | None:
    if concurrency is None:
        return None
    return {"group": concurrency.group.fill(str), "when_full": concurrency.when_full}


def _fields(name: str, job: Job) -> Json:
    """Return the fields of the job's definition from the file."""
    fields: Mapping[str, Any] = {
        "name": name,
        "job_command": _command(job),
        "description": job.description or None,
        "runner_image": None if job.image is None else job.image.as_json(),
        "queue_name": job.queue,
        "timeout_seconds": job.timeout_s,
        "priority": job.priority,
        "retries": job.retries,
        "code_dir": job.code_dir,
        "job_dir": job.job_dir,
        "cpu_limit": job.cpu_limit,
        "memory_limit_bytes": job.memory_limit_bytes,
        "artifacts": None if job.artifacts is None else list(job.artifacts),
    }
    return {field: value for field, value in fields.items() if value is not None}


def _command(job: Job) -> str:
    """Return the script for ``/bin/sh``, which passes it to another shell if the job names one."""
    if job.shell == "sh":
        return job.command
    quoted = job.command.replace("'", "'\\''")
    return f"exec {job.shell} -eo pipefail -c '{quoted}'"


def _environment(variables: Mapping[str, Template]) -> Json:
    return {name: value.as_json() for name, value in variables.items()}


def _service(service: Service) -> Json:
    """Return a service in the format of a request."""
    return {
        "image": service.image.as_json(),
        "environment": _environment(service.environment),
        "command": service.command,
        "ready": service.ready,
        "ready_timeout": service.ready_timeout_s,
    }


def main() -> None:
    """Evaluate the request on standard input."""
    limit_memory(_MAX_MEMORY_BYTES)
    json.dump(evaluate(json.load(sys.stdin)), sys.stdout)
