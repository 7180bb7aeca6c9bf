"""Reaching other hosts: which addresses may be reached, and HTTP requests to them."""
