"""The client for an address of Corndogs."""

from collections.abc import Callable

from reactorcide.corndogs.task import Corndogs


def connect(address: str, *, on_call: Callable[[str, str, float], None] | None = None) -> Corndogs:
    """Return a client for ``csil://host:port``, or for ``grpc://host:port``, which is also without a scheme.

    Connects at the first call. Raises ``ConfigurationError`` if the package that CSIL needs is not installed.
    """
    scheme, _, host_and_port = address.rpartition("://")
    # Each imported only where it is used: gRPC takes long, and cbor2 is optional.
    if scheme == "csil":
        from reactorcide.corndogs.csil.client import CsilCorndogs

        return CsilCorndogs(host_and_port, on_call=on_call)
    from reactorcide.corndogs.client import GrpcCorndogs

    return GrpcCorndogs(host_and_port, on_call=on_call)
