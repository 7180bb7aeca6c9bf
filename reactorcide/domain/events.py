"""The names of the events that start runs."""

from enum import StrEnum


class EventName(StrEnum):
    """The name of an event, the same for all forges."""

    PUSH = "push"
    TAG_CREATED = "tag_created"
    PULL_REQUEST_OPENED = "pull_request_opened"
    PULL_REQUEST_UPDATED = "pull_request_updated"
    PULL_REQUEST_CLOSED = "pull_request_closed"
    PULL_REQUEST_MERGED = "pull_request_merged"
    SCHEDULE = "schedule"
    MANUAL = "manual"

    @property
    def is_pull_request(self) -> bool:
        """Return whether it is about a pull request."""
        return self.startswith("pull_request_")
