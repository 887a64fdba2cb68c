"""Sends batches on a thread of its own: Put to the evaluator, then Complete to the coordinator; failures behind what is
there."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Callable

from ..channel import Channel
from ..errors import AssayError, Status
from ..schemas import pb
from ..wire import Curve
from .lease import Lease
from .member import jittered

log = logging.getLogger("assay.worker")

PASSING = (Status.UNAVAILABLE, Status.RESOURCE_EXHAUSTED, Status.DEADLINE_EXCEEDED)
BATCHES_MAX = 2
PUT_RECORDS_MAX = 60
PUT_BYTES_MAX = 64 << 20
PUT_S = 30.0
COMPLETE_S = 5.0
RETRY_S = 5.0
ATTEMPTS_MAX = 6
BACKOFF_S = 0.2
BACKOFF_MAX_S = 5.0


class Loan:
    """A lease under way. It is over when it was lost or given back: what is left of it is dropped."""

    def __init__(self, lease: Lease):
        self.lease = lease
        self.is_over = False


@dataclass
class Record:
    """`data` is [rows, width] of the dtype. An extra record does not complete its chunk."""

    key: bytes
    rows: int
    width: int
    data: bytes
    dtype: int
    tokens: int = 0
    is_extra: bool = False


@dataclass
class Batch:
    """Records of one forward pass; or, with a failure, the end of the lease."""

    loan: Loan
    records: list[Record] = field(default_factory=list)
    compute_us: int = 0
    failure: AssayError | None = None


def _groups(records: Sequence[Record]) -> list[list[Record]]:
    """Records that travel in one message."""
    groups: list[list[Record]] = []
    size = PUT_BYTES_MAX
    for record in records:
        if size >= PUT_BYTES_MAX or len(groups[-1]) == PUT_RECORDS_MAX:
            groups.append([])
            size = 0
        groups[-1].append(record)
        size += len(record.data)
    return groups


class Outbox:
    """`coordinator` stays the caller's."""

    def __init__(self, coordinator: Channel, numerics_id: str, curve: Curve | None):
        self.sent = 0  # records that the evaluator has acknowledged
        self._coordinator = coordinator
        self._numerics_id = numerics_id
        self._curve = curve
        self._evaluator: Channel | None = None
        self._queue: queue.Queue[Batch | None] = queue.Queue(BATCHES_MAX)
        self._hurried = threading.Event()
        self._thread = threading.Thread(target=self._run, name="assay-outbox", daemon=True)
        self._thread.start()

    def add(self, batch: Batch) -> None:
        """Waits for a place."""
        self._queue.put(batch)

    def drain(self) -> None:
        """Returns when all batches have been dealt with."""
        self._queue.put(None)
        self._thread.join()
        if self._evaluator:
            self._evaluator.close()

    def hurry(self) -> None:
        """No more second tries; calls under way are broken off."""
        self._hurried.set()
        if self._evaluator:
            self._evaluator.cancel_all()

    def _run(self) -> None:
        while True:
            batch = self._queue.get()
            if batch is None:
                return
            if not batch.loan.is_over:
                self._send(batch)

    def _send(self, batch: Batch) -> None:
        failure = batch.failure
        acknowledged: list[Record] = []
        try:
            for group in _groups(batch.records):
                self._again_and_again(lambda records=group: self._put(batch.loan.lease, records))
                acknowledged += group
                self.sent += len(group)
        except AssayError as error:
            cancelled = error.status is Status.CANCELLED
            failure = AssayError(Status.UNAVAILABLE, "the worker is shutting down") if cancelled else error
        lease = batch.loan.lease
        if failure:
            log.warning(
                'lease given back lease=%d status=%s reason="%s"', lease.lease_id, failure.status.name, failure.sentence
            )
        share = len(acknowledged) / len(batch.records) if batch.records else 0
        try:
            lost = self._again_and_again(
                lambda: self._complete(lease, acknowledged, int(batch.compute_us * share), failure)
            )
        except AssayError as error:
            log.warning(
                'lease given up lease=%d status=%s reason="%s"', lease.lease_id, error.status.name, error.sentence
            )
            lost = True
        if lost or failure:
            batch.loan.is_over = True

    def _again_and_again(self, attempt: Callable[[], bool]) -> bool:
        """Until it works, the failure does not pass, or time is up."""
        started, backoff = time.monotonic(), BACKOFF_S
        for count in range(1, ATTEMPTS_MAX + 1):
            try:
                return attempt()
            except AssayError as error:
                late = count == ATTEMPTS_MAX or time.monotonic() - started >= RETRY_S
                if late or error.status not in PASSING or self._hurried.wait(jittered(backoff)):
                    raise
            backoff = min(2 * backoff, BACKOFF_MAX_S)
        return False

    def _put(self, lease: Lease, records: Sequence[Record]) -> bool:
        if self._evaluator is None or self._evaluator.endpoint != lease.evaluator:
            former, self._evaluator = self._evaluator, Channel(lease.evaluator, self._curve)
            if former:
                former.close()
        request = pb.PutRecordsRequest()
        for index, record in enumerate(records):
            tensor = pb.Tensor(dtype=record.dtype, shape=[record.rows, record.width], attachment=index)
            request.records.add(
                chunk_key=record.key, variant_id=lease.variant.variant_id, numerics_id=self._numerics_id, hidden=tensor
            )
        reply = self._evaluator.call(
            "assay.v1.Records/Put",
            request,
            attachments=[record.data for record in records],
            deadline_s=PUT_S,
            trace_id=lease.trace_id,
        )
        if reply.message.stored != len(records):
            stored = reply.message.stored
            raise AssayError(
                Status.UNAVAILABLE, f"the evaluator at {lease.evaluator} stored {stored} of {len(records)}"
            )
        return True

    def _complete(
        self, lease: Lease, acknowledged: Sequence[Record], compute_us: int, failure: AssayError | None
    ) -> bool:
        """True: the lease is lost."""
        request = pb.CompleteRequest(
            service_id=lease.service_id,
            lease_id=lease.lease_id,
            chunk_keys=[record.key for record in acknowledged if not record.is_extra],
            tokens=sum(record.tokens for record in acknowledged),
            compute_us=compute_us,
        )
        if failure:
            request.failure = failure.sentence[:2000]
            request.failure_status = int(failure.status)
        reply = self._coordinator.call(
            "assay.v1.Work/Complete", request, deadline_s=COMPLETE_S, trace_id=lease.trace_id
        )
        return reply.message.lease_lost
