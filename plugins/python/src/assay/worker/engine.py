"""What a worker needs of a model."""

from __future__ import annotations

from collections.abc import Sequence as ListOf
from dataclasses import dataclass
from typing import Protocol

from .lease import Variant


@dataclass(frozen=True)
class Sequence:
    """Token ids to run, and the rows of hidden states that are wanted."""

    ids: memoryview  # int32
    begin: int
    end: int


class Engine(Protocol):
    """Loads one artifact at a time and runs it. One thread calls it. Failures are AssayErrors; of these
    INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED and DATA_LOSS say that no other try
    will do better, and end the job."""

    numerics_id: str  # engine, versions, everything else that decides the bits; at most 63 bytes
    device: str
    threads: int
    width: int  # hidden size of the loaded model

    def load(self, variant: Variant) -> None:
        """Replaces the model that is loaded by that of variant.artifact_dir."""

    def run(self, sequences: ListOf[Sequence]) -> list[bytes]:
        """For each sequence its rows [begin, end) of the hidden states after the final norm: float32, little-endian,
        row-major, `width` values each. The rows of one sequence do not depend on the others."""
