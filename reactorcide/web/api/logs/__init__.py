"""Logs and status changes: routes and their schemas."""
