"""The worker: leases, has the engine compute, hands over to the outbox."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ..channel import Channel
from ..errors import AssayError, Status
from ..schemas import pb
from ..security import Key
from ..server import Server
from .artifacts import find_artifact
from .engine import Engine, Sequence
from .lease import CHUNKS_MAX, Chunk, Lease, read_lease
from .member import Member, jittered
from .narrow import is_measured, narrow
from .outbox import Batch, Loan, ModelTooLarge, Outbox
from .putting import Record

log = logging.getLogger("assay.worker")

NUMERICS_BYTES_MAX = 63
LEASE_WAIT_S = 20.0
LEASE_GRACE_S = 5.0
BACKOFF_S = 0.1
BACKOFF_MAX_S = 5.0


@dataclass(frozen=True)
class WorkerOptions:
    coordinator: str  # endpoint
    listen: str  # where this worker's Health is served
    precision: str  # the scheme it runs: "fp32"
    cache_dir: str = ""  # where artifacts go that are fetched; empty: only visible ones are run
    batch: int = 1  # chunks of one forward pass, all of one length
    key: Key | None = None


def batches_of(chunks: tuple[Chunk, ...], most: int) -> Iterator[list[Chunk]]:
    """Neighbours of one length, so that nothing is padded."""
    batch: list[Chunk] = []
    for chunk in chunks:
        if batch and (len(batch) == most or len(batch[0].ids) != len(chunk.ids)):
            yield batch
            batch = []
        batch.append(chunk)
    if batch:
        yield batch


class Worker:
    """Works from the moment it is made until `stop`. The engine is used by one thread of the worker."""

    def __init__(self, options: WorkerOptions, engine: Engine):
        """AssayError: the endpoint cannot be served, or the numerics id is too long."""
        if not 0 < len(engine.numerics_id.encode()) <= NUMERICS_BYTES_MAX:
            raise AssayError(
                Status.INVALID_ARGUMENT,
                f"a numerics id has 1 to {NUMERICS_BYTES_MAX} bytes, found '{engine.numerics_id}'",
            )
        self.chunks_run = self.tokens_run = self.compute_us = self.models_loaded = 0
        self._options = options
        self._engine = engine
        self._started = time.monotonic()
        self._loaded = b""
        self._backoff = 0.0
        self._stopping = threading.Event()
        self._server = Server(options.listen)
        self._leasing = Channel(options.coordinator, options.key)
        self._coordinator = Channel(options.coordinator, options.key)
        self._outbox = Outbox(self._coordinator, engine.numerics_id, options.key)
        registration = pb.RegisterRequest(
            kind=pb.SERVICE_KIND_INFERENCE,
            endpoint=self._server.endpoint,
            precision=options.precision,
            numerics_id=engine.numerics_id,
            threads=engine.threads,
            device=engine.device,
        )
        self._member = Member(self._coordinator, registration, self._counters)
        self._thread = threading.Thread(target=self._run, name="assay-worker", daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return self._server.endpoint

    def is_alive(self) -> bool:
        """False: the worker's thread has ended, by `stop` or by a mistake of the engine that took it down."""
        return self._thread.is_alive()

    def stop(self, grace_s: float = 8.0) -> None:
        """Finishes the batch in hand, gives the rest of the lease back, sends what is computed; after grace_s calls are
        broken off."""
        self._server.set_serving(False)
        self._stopping.set()
        until = time.monotonic() + grace_s
        while self._thread.is_alive():
            self._leasing.cancel_all()
            if time.monotonic() > until:
                self._outbox.hurry()
                self._coordinator.cancel_all()
            self._thread.join(0.05)
        self._coordinator.cancel_all()
        self._member.stop()
        self._leasing.close()
        self._coordinator.close()
        self._server.close()
        log.info(
            "stopped chunks_run=%d tokens_run=%d records_sent=%d compute_ms=%d models_loaded=%d",
            self.chunks_run,
            self.tokens_run,
            self._outbox.sent,
            self.compute_us // 1000,
            self.models_loaded,
        )

    def _counters(self) -> dict[str, int]:
        return {
            "chunks_run": self.chunks_run,
            "tokens_run": self.tokens_run,
            "records_sent": self._outbox.sent,
            "compute_us": self.compute_us,
            "models_loaded": self.models_loaded,
            "uptime_ms": int((time.monotonic() - self._started) * 1000),
        }

    def _back_off(self) -> None:
        self._backoff = min(2 * self._backoff, BACKOFF_MAX_S) if self._backoff else BACKOFF_S
        self._stopping.wait(jittered(self._backoff))

    def _run(self) -> None:
        while not self._stopping.is_set():
            service_id = self._member.wait_for_id(0.2)
            if service_id == 0:
                continue
            try:
                lease = self._lease(service_id)
            except AssayError as error:
                self._lease_failed(service_id, error)
                continue
            self._backoff = 0.0 if lease is None else self._backoff
            if lease:
                self._run_lease(Loan(lease))
        self._outbox.drain()

    def _lease_failed(self, service_id: int, error: AssayError) -> None:
        if self._stopping.is_set():
            return
        if error.status is Status.NOT_FOUND:
            self._member.forgotten(service_id)
        if self._backoff == 0 and error.status is not Status.DEADLINE_EXCEEDED:
            log.warning('no lease, trying on status=%s reason="%s"', error.status.name, error.sentence)
        self._back_off()

    def _lease(self, service_id: int) -> Lease | None:
        request = pb.LeaseRequest(
            service_id=service_id,
            chunks_max=min(2 * self._options.batch, CHUNKS_MAX),
            wait_ms=int(LEASE_WAIT_S * 1000),
            loaded_variant_ids=[self._loaded] if self._loaded else [],
            batch_chunks=self._options.batch,
            says_held=True,
            held_lease_ids=self._outbox.leases(),
        )
        reply = self._leasing.call("assay.v1.Work/Lease", request, deadline_s=LEASE_WAIT_S + LEASE_GRACE_S)
        try:
            return read_lease(service_id, reply)
        except AssayError as error:  # nobody can work on it: it must not wait for its end
            request = pb.CompleteRequest(
                service_id=service_id,
                lease_id=reply.message.lease_id,
                failure=error.sentence,
                failure_status=int(error.status),
            )
            self._coordinator.call("assay.v1.Work/Complete", request, deadline_s=2.0)
            raise

    def _run_lease(self, loan: Loan) -> None:
        try:
            self._load(loan.lease)
            for chunks in batches_of(loan.lease.chunks, self._options.batch):
                if loan.is_over:
                    break
                if self._stopping.is_set():
                    raise AssayError(Status.UNAVAILABLE, "the worker is shutting down")
                self._run_batch(loan, chunks)
            self._backoff = 0.0
        except AssayError as error:
            self._give_back(loan, error)
        except MemoryError as error:
            self._give_back(loan, AssayError(Status.RESOURCE_EXHAUSTED, f"out of memory: {error}"))
        except Exception as error:  # the engine's mistake: the chunks go back, counted
            log.exception("the engine failed")
            self._give_back(loan, AssayError(Status.INTERNAL, f"{type(error).__name__}: {error}"))

    def _give_back(self, loan: Loan, failure: AssayError) -> None:
        self._outbox.add(Batch(loan, failure=failure))
        self._back_off()  # so that a lease which comes back at once does not spin

    def _load(self, lease: Lease) -> None:
        variant = lease.variant
        if variant.scheme != self._options.precision:
            raise AssayError(
                Status.FAILED_PRECONDITION,
                f"this worker runs {self._options.precision}, the lease is of {variant.scheme}",
            )
        if variant.variant_id == self._loaded:
            return
        self._loaded = b""
        started = time.monotonic()
        found = find_artifact(variant, self._options.cache_dir, self._options.key, self._stopping.is_set)
        try:
            self._engine.load(dataclasses.replace(variant, artifact_dir=found))
        except MemoryError as error:
            raise ModelTooLarge(Status.RESOURCE_EXHAUSTED, f"out of memory: {error}") from error
        except AssayError as error:
            if error.status is not Status.RESOURCE_EXHAUSTED:
                raise
            raise ModelTooLarge(error.status, error.sentence) from error
        self._loaded = variant.variant_id
        self.models_loaded += 1
        wall_ms = (time.monotonic() - started) * 1000
        log.info("model loaded variant=%s dir=%s wall_ms=%d", variant.label, found, wall_ms)

    def _run_batch(self, loan: Loan, chunks: list[Chunk]) -> None:
        started = time.monotonic()
        hidden = self._engine.run([Sequence(chunk.ids, chunk.begin, chunk.end) for chunk in chunks])
        compute_us = int((time.monotonic() - started) * 1e6)
        width = self._engine.width
        batch = Batch(loan, compute_us=compute_us)
        for chunk, data in zip(chunks, hidden):
            rows = chunk.end - chunk.begin
            if len(data) != rows * width * 4:
                raise AssayError(Status.INTERNAL, f"the engine gave {len(data)} bytes for [{rows}, {width}] of float32")
            full = Record(chunk.key, rows, width, data, pb.DTYPE_F32, len(chunk.ids))
            if not loan.lease.wants_f16:
                batch.records.append(full)
                continue
            if is_measured(chunk.key, loan.lease.first_of_job):
                batch.records.append(Record(chunk.key, rows, width, data, pb.DTYPE_F32, is_extra=True))
            narrowed = narrow(chunk.key, data, width)
            batch.records.append(Record(chunk.key, rows, width, narrowed, pb.DTYPE_F16, len(chunk.ids)))
        self.chunks_run += len(chunks)
        self.tokens_run += sum(len(chunk.ids) for chunk in chunks)
        self.compute_us += compute_us
        self._outbox.add(batch)
