"""The schema of the page that shows the API."""

from reactorcide.web.api.schemas import Schema


class AssetPath(Schema):
    """The name of a file of the page that shows the API."""

    name: str
