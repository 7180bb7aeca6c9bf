"""Workflow files: read, checked, expanded into the graph of a run, and resolved as its nodes end.

Pure: text and values in, values out. Reading begins at ``definition.check``; ``Definition.expand`` makes the
graph of a run, and ``resolve.resolve`` says what follows from what has become of its nodes.
"""
