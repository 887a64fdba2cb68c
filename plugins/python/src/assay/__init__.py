"""assay from Python: submit jobs, follow them, read their reports; serve as a worker (assay.worker)."""

from .channel import Channel, Reply, Retry, Stream
from .client import Client
from .errors import AssayError, Status
from .report import report_of, table_of
from .schemas import SCHEMAS, Schemas, pb
from .server import Context, Server
from .wire import Curve

__version__ = "0.1.0"
__all__ = [
    "SCHEMAS",
    "AssayError",
    "Channel",
    "Client",
    "Context",
    "Curve",
    "Reply",
    "Retry",
    "Schemas",
    "Server",
    "Status",
    "Stream",
    "pb",
    "report_of",
    "table_of",
]
