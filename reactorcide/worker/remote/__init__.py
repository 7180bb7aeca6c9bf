"""The port of a worker on another machine: ``WorkerPort`` over HTTP."""
