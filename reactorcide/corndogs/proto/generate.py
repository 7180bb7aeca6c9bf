"""Regenerate the Python side of ``corndogs.proto``: ``python -m reactorcide.corndogs.proto.generate``.

Needs grpcio-tools, a development dependency, and so imports it only when it is run.
"""

import sys
from pathlib import Path

_PROTO = Path(__file__).with_name("corndogs.proto")
# protoc derives the generated files' imports from the path below its root: with the directory that
# holds the package as root they come out absolute, and need no repair.
_ROOT = Path(__file__).parents[3]


def generate(output_root: Path) -> None:
    """Write ``corndogs_pb2.py``, ``.pyi`` and ``corndogs_pb2_grpc.py`` below ``output_root``.

    They land in ``reactorcide/corndogs/proto`` there, and replace what is in their place. Raises
    ``RuntimeError`` when protoc refuses; it has then said why on standard error.
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
