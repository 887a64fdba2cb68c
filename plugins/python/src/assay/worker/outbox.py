"""Sends batches on a thread of its own: Put to the evaluators, then Complete to the coordinator; failures come behind
what is there."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..channel import Channel
from ..errors import AssayError, Status
from ..schemas import pb
from ..security import Key
from .lease import Lease
from .putting import Putter, Record, again_and_again

log = logging.getLogger("assay.worker")

BATCHES_MAX = 2
COMPLETE_S = 10.0


class ModelTooLarge(AssayError):
    """The model is here, and memory has no room for it."""


class Loan:
    """A lease under way. It is over when it was lost or given back: what is left of it is dropped."""

    def __init__(self, lease: Lease):
        self.lease = lease
        self.is_over = False


@dataclass
class Batch:
    """Records of one forward pass; or, with a failure, the end of the lease."""

    loan: Loan
    records: list[Record] = field(default_factory=list)
    compute_us: int = 0
    failure: AssayError | None = None


class Outbox:
    """`coordinator` stays the caller's."""

    def __init__(self, coordinator: Channel, numerics_id: str, key: Key | None):
        self.sent = 0  # records that an evaluator has acknowledged
        self._coordinator = coordinator
        self._hurried = threading.Event()
        self._putter = Putter(numerics_id, key, self._hurried)
        self._queue: queue.Queue[Batch | None] = queue.Queue(BATCHES_MAX)
        self._leases: list[int] = []  # of the batches on their way
        self._lock = threading.Lock()  # guards _leases
        self._thread = threading.Thread(target=self._run, name="assay-outbox", daemon=True)
        self._thread.start()

    def add(self, batch: Batch) -> None:
        """Waits for a place."""
        with self._lock:
            self._leases.append(batch.loan.lease.lease_id)
        self._queue.put(batch)

    def leases(self) -> set[int]:
        """Of the batches on their way."""
        with self._lock:
            return set(self._leases)

    def drain(self) -> None:
        """Returns when all batches have been dealt with."""
        self._queue.put(None)
        self._thread.join()
        self._putter.close()

    def hurry(self) -> None:
        """No more second tries; calls under way are broken off."""
        self._hurried.set()
        self._putter.cancel_all()

    def _run(self) -> None:
        while True:
            batch = self._queue.get()
            if batch is None:
                return
            if not batch.loan.is_over:
                self._send(batch)
            with self._lock:
                self._leases.remove(batch.loan.lease.lease_id)

    def _send(self, batch: Batch) -> None:
        lease, failure = batch.loan.lease, batch.failure
        acknowledged: list[Record] = []

        def note(records: Sequence[Record]) -> None:
            acknowledged.extend(records)
            self.sent += len(records)

        try:
            self._putter.put_all(lease, batch.records, note)
        except AssayError as error:
            cancelled = error.status is Status.CANCELLED
            failure = AssayError(Status.UNAVAILABLE, "the worker is shutting down") if cancelled else error
        if failure:
            log.warning(
                'lease given back lease=%d status=%s reason="%s"', lease.lease_id, failure.status.name, failure.sentence
            )
        tokens_all = sum(record.tokens for record in batch.records)
        tokens = sum(record.tokens for record in acknowledged)
        request = pb.CompleteRequest(
            service_id=lease.service_id,
            lease_id=lease.lease_id,
            chunk_keys=[record.key for record in acknowledged if not record.is_extra],
            tokens=tokens,
            compute_us=batch.compute_us * tokens // tokens_all if tokens_all else 0,
        )
        if failure:
            request.failure = failure.sentence[:2000]
            request.failure_status = int(failure.status)
            request.too_large = isinstance(failure, ModelTooLarge)
        if self._is_lost(lease, request) or failure:
            batch.loan.is_over = True

    def _is_lost(self, lease: Lease, request: object) -> bool:
        """Tells the coordinator. Whether the lease is lost, or the coordinator cannot be reached."""
        try:
            reply = again_and_again(
                lambda: self._coordinator.call(
                    "assay.v1.Work/Complete", request, deadline_s=COMPLETE_S, trace_id=lease.trace_id
                ),
                self._hurried,
            )
        except AssayError as error:
            log.warning(
                'lease given up lease=%d status=%s reason="%s"', lease.lease_id, error.status.name, error.sentence
            )
            return True
        if reply.message.lease_lost:
            log.warning("lease lost lease=%d", lease.lease_id)
        return reply.message.lease_lost
