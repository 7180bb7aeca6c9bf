"""Regenerate the Python side of ``corndogs.proto``: ``python -m reactorcide.corndogs.proto.generate``.

Needs grpcio-tools, a development dependency, and so imports it only when it is run.
"""

import sys
from pathlib import Path

_PROTO = Path(__file__).with_name("corndogs.proto")
# protoc derives the imports of generated files from paths below its root. With the directory that contains
# the package as root they are absolute.
_ROOT = Path(__file__).parents[3]


def generate(output_root: Path) -> None:
    """Write ``corndogs_pb2.py``, ``.pyi`` and ``corndogs_pb2_grpc.py`` below ``output_root``.

    They are in ``reactorcide/corndogs/proto`` there, and replace existing ones. Raises ``RuntimeError`` if
    protoc fails; its error is on standard error.
    """
    from grpc_tools import protoc

    status = protoc.main(
        [
            "protoc",
            f"--proto_path={_ROOT}",
            f"--python_out={output_root}",
            f"--pyi_out={output_root}",
            f"--grpc_python_out={output_root}",
            str(_PROTO),
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc ended with status {status}")


if __name__ == "__main__":
    generate(_ROOT)
    sys.stdout.write(f"Generated the Python files beside {_PROTO}.\n")
