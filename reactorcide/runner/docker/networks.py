"""The network on which containers cannot reach each other."""

import docker
import docker.errors

from reactorcide.domain.errors import EngineUnavailable, InfrastructureError
from reactorcide.runner.docker.errors import ignoring, translated

# One network for all jobs of all services on an engine, never removed: one for each job would cost a quarter
# of a second. Two bridges of one name cannot exist, so naming it keeps services that create it in the same
# moment from creating two.
ISOLATED = "reactorcide-isolated"
_NO_CROSS_TALK = {
    "com.docker.network.bridge.enable_icc": "false",
    "com.docker.network.bridge.name": "reactorcide0",
}


def create_isolated(api: docker.APIClient) -> None:
    """Create the isolated network unless it exists; raises ``InfrastructureError`` for one that is not."""
    with translated(f"make the network {ISOLATED}"):
        # 409: it exists; 403: its bridge does, for somebody else creates it in this moment.
        with ignoring(403, 409):
            api.create_network(
                ISOLATED,
                driver="bridge",
                check_duplicate=True,
                options=_NO_CROSS_TALK,
                labels={"reactorcide.network": "isolated"},
            )
        try:
            options = api.inspect_network(ISOLATED)["Options"]
        except docker.errors.NotFound as exc:
            raise EngineUnavailable(f"the network {ISOLATED} could not be made") from exc
    if not _NO_CROSS_TALK.items() <= (options or {}).items():
        raise InfrastructureError(
            f"the network {ISOLATED} lets containers reach each other; remove it, and it is created again"
        )
