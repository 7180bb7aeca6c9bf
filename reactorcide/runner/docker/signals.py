"""Signals to the command of a container."""

import docker.errors

from reactorcide.runner import Signal
from reactorcide.runner.docker.client import EngineClient
from reactorcide.runner.docker.errors import ignoring, translated

_TERMINATE_ALL = ["/bin/sh", "-c", "kill -TERM -1"]
"""Signals all processes of the namespace except the first one and itself."""


def send(client: EngineClient, container_id: str, signal: Signal) -> None:
    """See ``Runner.signal``."""
    # Over already (409), or gone (404): there is nothing left to signal.
    with translated("stop the container"), ignoring(404, 409):
        if signal == "TERM" and client.is_podman() and _terminate_all(client, container_id):
            return
        try:
            client.api().kill(container_id, f"SIG{signal}")
        except docker.errors.APIError as exc:
            # Podman's answer for one that is over.
            if "can only kill running" not in str(exc.explanation):
                raise


def _terminate_all(client: EngineClient, container_id: str) -> bool:
    """Send TERM to all processes of a container; ``False`` if that is not possible.

    Docker's init passes signals on to a process group, if it is asked to; Podman's to one process only.
    """
    api = client.api()
    try:
        command = api.exec_create(container_id, _TERMINATE_ALL, stdout=False, stderr=False, user="0")
        api.exec_start(command["Id"], detach=True)
    except docker.errors.APIError:
        # It is over, or may have no more processes. Its init can still be signalled.
        return False
    return True
