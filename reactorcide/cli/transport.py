"""HTTP over the socket in the data directory, for the client's library. Imported late, as that is."""

from pathlib import Path
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from reactorcide.cli import localsocket


class LocalAdapter(HTTPAdapter):
    """Connects to the service that works on ``data_dir``, whatever host a URL names."""

    def __init__(self, data_dir: Path, connect_s: float) -> None:
        class Connection(HTTPConnection):
            def connect(self) -> None:
                self.sock = localsocket.connect(data_dir, connect_s)

        class Pool(HTTPConnectionPool):
            ConnectionCls = Connection

        self._pool = Pool
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pool of connections; called by the library."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": self._pool}
