"""Benchmarks of Reactorcide against the plain Docker Engine of the same machine: ``python -m benchmarks``."""
