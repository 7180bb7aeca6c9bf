"""The Docker Engine as a ``Runner``: the only importer of the Docker SDK.

``containers`` has the runner itself, ``client`` its connection, and ``errors`` the translation of errors.
``images``, ``networks``, ``archives`` (files as tar streams), ``output``, ``services``, ``signals``, ``disk``
and ``users`` do one part each, ``warm`` the pool of warm containers.
"""

from reactorcide.runner.docker.containers import DockerRunner
from reactorcide.runner.docker.labels import container_name

__all__ = ["DockerRunner", "container_name"]
