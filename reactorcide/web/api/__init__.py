"""The routes below ``/api/v1``: a package for each resource, with its routes and their schemas."""

PREFIX = "/api/v1"
