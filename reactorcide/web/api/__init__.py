"""The routes below ``/api/v1``, and the models they validate and answer with."""

PREFIX = "/api/v1"


def operation_name(*, name: str, **_: str) -> str:
    """Return what a route is called in the document: as its function is."""
    return name
