"""The schema of the page that shows the API."""

from pydantic import BaseModel


class AssetPath(BaseModel):
    """The name of a file of the page that shows the API."""

    name: str
