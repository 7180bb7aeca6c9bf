"""Reactorcide: runs jobs in containers and keeps their logs and artifacts."""

__version__ = "0.1.0"
