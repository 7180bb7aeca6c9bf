"""The engine's events, which tell of a container's end before its other calls do."""

import contextlib
import json
from datetime import datetime
from typing import Any

import requests


def has_ended_well(api: Any, container_id: str, started_at: str, timeout_s: float) -> bool:
    """Return whether the command of a container ended with exit code 0, waiting for its end if it runs.

    The event comes when all processes of the container have ended and its output is complete; only then the
    engine takes its network down, and answers other calls that concern it. ``started_at`` is the start of the
    container's life by the engine's clock. ``False`` says nothing: the engine may have forgotten the event.
    """
    params = {
        "since": int(datetime.fromisoformat(f"{started_at[:19]}+00:00").timestamp()),
        "filters": json.dumps({"container": [container_id], "event": ["die"]}),
    }
    # What fails here is asked by other calls, which report it.
    with contextlib.suppress(requests.RequestException):
        response = api._get(api._url("/events"), params=params, stream=True, timeout=timeout_s)
        with contextlib.closing(response):
            for line in response.iter_lines():
                return bool(json.loads(line)["Actor"]["Attributes"]["exitCode"] == "0")
    return False
