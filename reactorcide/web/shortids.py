"""Shortened ids in paths: an unambiguous prefix is enough."""

from flask import Flask, g, request

from reactorcide.jobs import ids
from reactorcide.web.auth import caller
from reactorcide.web.services import services

_COMPLETE = {"job_id": ids.job_id, "run_id": ids.run_id}


def install(app: Flask) -> None:
    """Complete the ids of jobs and runs in paths; install it after authentication."""
    app.before_request(_complete)


def _complete() -> None:
    arguments = request.view_args
    if not arguments or "user" not in g:
        return
    for name in arguments.keys() & _COMPLETE:
        arguments[name] = _COMPLETE[name](services().jobs, caller(), arguments[name])
