"""Artifacts: routes and their schemas."""
