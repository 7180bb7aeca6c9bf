"""Reactorcide measured against the bare engine, on the machine that it runs on: ``python -m benchmarks``."""
