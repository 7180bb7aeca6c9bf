"""The routes below ``/api/v1``, and the models they validate and answer with."""

PREFIX = "/api/v1"
