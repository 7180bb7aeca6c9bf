"""Use cases of workers on other machines: the service's side of ``WorkerPort`` over HTTP."""
