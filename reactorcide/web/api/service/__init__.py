"""The service itself: routes and their schemas."""
