"""An inference worker: takes leases of one scheme, has an engine compute the hidden states, sends the records.

`Worker` is all of it but the model: an `Engine` loads an artifact and runs token ids. `assay.worker.engine` has the one
on transformers, and `python -m assay.worker` runs it."""

from .engine import Engine, Sequence
from .lease import Chunk, Lease, Variant
from .worker import Worker, WorkerOptions

__all__ = ["Chunk", "Engine", "Lease", "Sequence", "Variant", "Worker", "WorkerOptions"]
