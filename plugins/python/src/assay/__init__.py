"""assay from Python: submit jobs, follow them, read their reports; serve as a worker (assay.worker)."""

from .channel import Channel, Reply, Retry, Stream
from .client import Client
from .errors import AssayError, Status
from .report import report_of, table_of
from .schemas import SCHEMAS, Schemas, pb
from .security import Key, read_public_key, read_secret_key, with_server_key
from .server import Context, Server

__version__ = "0.1.0"
__all__ = [
    "SCHEMAS",
    "AssayError",
    "Channel",
    "Client",
    "Context",
    "Key",
    "Reply",
    "Retry",
    "Schemas",
    "Server",
    "Status",
    "Stream",
    "pb",
    "read_public_key",
    "read_secret_key",
    "report_of",
    "table_of",
    "with_server_key",
]
