"""Dataclasses, statuses and their transitions, and errors; no I/O and no libraries."""
