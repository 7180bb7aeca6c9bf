"""Caches: routes and their schemas."""
