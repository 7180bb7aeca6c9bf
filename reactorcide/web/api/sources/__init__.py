"""Uploaded sources: routes and their schemas."""
