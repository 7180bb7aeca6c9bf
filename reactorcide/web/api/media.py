"""Media types other than JSON, for the document: schemas and examples."""

from typing import Any

Media = dict[str, Any]

_LINES = "collected 12 items\n12 passed in 0.41s\n"
_AT = "2026-01-31T12:00:01.250Z"
_JOB_ID = "0198c0de-1d2c-7b3a-9f4e-5a6b7c8d9e0f"

LOG: Media = {
    "schema": {"type": "string", "description": "The output of the job, byte for byte."},
    "example": _LINES,
}


def _events(description: str, *models: str) -> Media:
    """Return the schema of server-sent events: of the stream as text, and of each event."""
    data = [{"$ref": f"#/components/schemas/{model}"} for model in models]
    event = {
        "type": "object",
        "required": ["data"],
        "properties": {
            "id": {"type": "string", "description": "The value for `Last-Event-ID`."},
            "event": {"type": "string"},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"anyOf": data},
            },
        },
    }
    return {"description": description, "anyOf": [{"type": "string"}, event]}


SCHEMAS = {
    "LogEvents": _events("A log, then the event `end` after the job has ended.", "LogEvent", "LogEnd"),
    "JobEvents": _events(
        "Status changes of jobs, and as events `run` and `node` those of runs, in an endless stream.",
        "JobEvent",
        "RunEvent",
    ),
}
"""Schemas that the framework's model of a schema cannot express, by name."""
LOG_EVENTS: Media = {
    "schema": {"$ref": "#/components/schemas/LogEvents"},
    "example": (
        "id: 1:0\n\n"
        f'id: 1:19\ndata: {{"t": "{_AT}", "stream": "stdout", "text": "collected 12 items\\n"}}\n\n'
        'event: end\ndata: {"status": "completed", "exit_code": 0, "error": null}\n\n'
    ),
}
JOB_EVENTS: Media = {
    "schema": {"$ref": "#/components/schemas/JobEvents"},
    "example": (
        "id: 41\n\n"
        f'id: 42\ndata: {{"job_id": "{_JOB_ID}", "name": "test the main branch", "queue_name": "default", '
        f'"from": "queued", "to": "running", "attempt": 1, "reason": null, "at": "{_AT}", '
        '"run_id": null, "node": null}\n\n'
    ),
}
WORKFLOW: Media = {
    "schema": {"type": "string", "description": "The workflow file; of several job files one after another."},
    "example": "name: CI\non: push\njobs:\n  test: {command: make test}\n",
}
BADGE: Media = {
    "schema": {"type": "string", "description": "An image: `passing`, `failing` or `no runs`."},
    "example": '<svg xmlns="http://www.w3.org/2000/svg"/>',
}
METRICS: Media = {
    "schema": {"type": "string", "description": "Prometheus' text format."},
    "example": "# TYPE reactorcide_running_jobs gauge\nreactorcide_running_jobs 2.0\n",
}
FILE: Media = {
    "schema": {"type": "string", "format": "binary", "description": "The bytes of the file."},
    "example": "<testsuite/>",
}
SUMMARY: Media = {
    "schema": {"type": "string", "description": "The summary of the job, as Markdown."},
    "example": "## Coverage\n\n91 % of 4,120 lines\n",
}
TAR_GZ: Media = {
    "schema": {"type": "string", "format": "binary", "description": "A tar.gz of all files."},
    "example": "(the bytes of a gzip of a tar with report.xml)",
}
TAR: Media = {
    "schema": {"type": "string", "format": "binary", "description": "A tar of directories, files and links."},
    "example": "(the bytes of a tar with hello.sh)",
}
ARTIFACT: Media = {"schema": {"type": "string", "format": "binary", "description": "The bytes of the file."}}
LISTING: Media = {
    "schema": {"type": "string", "description": "JSON: the artifacts, and whether there were more."},
}
REPORT: Media = {
    "schema": {"type": "string", "description": "JSON: the results of tests and the summary."},
}
LOG_PIECE: Media = {
    "schema": {"type": "string", "format": "binary", "description": "Bytes of the log, then of its index."},
}
CACHE: Media = {"schema": TAR["schema"]}
SOURCE: Media = {
    "schema": {
        "type": "string",
        "format": "binary",
        "description": "A tar.gz of directories, files and symbolic links.",
    }
}
DELIVERY: Media = {
    "schema": {"type": "object", "description": "A payload as the forge documents it."},
    "example": {"ref": "refs/heads/main", "after": "0123456789abcdef0123456789abcdef01234567"},
}
DOCUMENT: Media = {
    "schema": {"type": "object", "description": "An OpenAPI document."},
    "example": {"openapi": "3.1.0", "info": {"title": "Reactorcide", "version": "0.1.0"}, "paths": {}},
}
JSON_SCHEMA: Media = {
    "schema": {"type": "object", "description": "A JSON Schema."},
    "example": {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Reactorcide workflow"},
}
PAGE: Media = {"schema": {"type": "string"}, "example": '<!DOCTYPE html>\n<html lang="en"></html>\n'}
STYLE: Media = {"schema": {"type": "string"}, "example": "body { margin: 0; }\n"}
SCRIPT: Media = {"schema": {"type": "string"}, "example": 'SwaggerUIBundle({ url: "v1/openapi.json" });\n'}
