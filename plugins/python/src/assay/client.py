"""A user's view of a stack: submit a job, follow it, read what it found, look around, call anything."""

from __future__ import annotations

import array
import os
import pathlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Union

from google.protobuf import json_format
from google.protobuf.message import Message

from . import respond
from .channel import Channel, Retry
from .errors import AssayError, Status
from .job import PathLike, read_job_file, request_of
from .report import report_of
from .schemas import Schemas, pb
from .security import Key

SUBMIT_S = 1800.0  # the coordinator digests the model and cuts the corpus before it answers
AWAY_S = 60.0  # a coordinator that is gone that long is gone for good
OVER = (pb.JOB_STATE_COMPLETED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED)


def data_dir(data: PathLike | None = None) -> pathlib.Path:
    """`data`, $ASSAY_DATA, $XDG_DATA_HOME/assay, ~/.local/share/assay."""
    home = os.environ.get("XDG_DATA_HOME") or pathlib.Path.home() / ".local" / "share"
    return pathlib.Path(data or os.environ.get("ASSAY_DATA") or pathlib.Path(home, "assay")).absolute()


def default_endpoint(data: PathLike | None = None) -> str:
    """Where `assay up` listens: $ASSAY_COORDINATOR unless `data` is given, else the socket in the data directory."""
    if data is None and os.environ.get("ASSAY_COORDINATOR"):
        return os.environ["ASSAY_COORDINATOR"]
    return f"ipc://{data_dir(data)}/run/coordinator.sock"


def _id_of(job_id: Union[str, bytes]) -> bytes:
    try:
        found = bytes.fromhex(job_id) if isinstance(job_id, str) else bytes(job_id)
    except ValueError as error:
        raise AssayError(Status.INVALID_ARGUMENT, f"a job's id is 32 hexadecimal digits, found '{job_id}'") from error
    return found


class Client:
    """Calls to one coordinator. Job ids are 32 hexadecimal digits. Any thread; close it, or use it in `with`."""

    def __init__(self, endpoint: str | None = None, *, data: PathLike | None = None, key: Key | None = None):
        self.endpoint = endpoint or default_endpoint(data)
        self._key = key
        self._channel = Channel(self.endpoint, key)
        self._retry = Retry()
        self._lock = threading.Lock()
        self._workers: dict[str, Channel] = {}  # by endpoint

    def close(self) -> None:
        with self._lock:
            workers = list(self._workers.values())
            self._workers.clear()
        for channel in [*workers, self._channel]:
            channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, method: str, request: Message | None = None) -> Any:
        """A call that changes nothing, or nothing when it is repeated."""
        return self._channel.call(f"assay.v1.Coordinator/{method}", request, retry=self._retry).message

    # --- jobs ---

    def submit(self, job: Mapping[str, Any] | PathLike) -> str:
        """Submits a job, a dict (see job.request_of) or a job file; its id. The job is on disk then."""
        request, corpus = request_of(read_job_file(job) if isinstance(job, (str, pathlib.Path)) else job)
        reply = self._channel.call("assay.v1.Coordinator/SubmitJob", request, attachments=[corpus], deadline_s=SUBMIT_S)
        return reply.message.job_id.hex()

    def plan(self, job: Mapping[str, Any] | PathLike) -> Any:
        """The JobPlan of what `submit` would run; nothing is started."""
        request, corpus = request_of(read_job_file(job) if isinstance(job, (str, pathlib.Path)) else job)
        return self._channel.call(
            "assay.v1.Coordinator/PlanJob", request, attachments=[corpus], deadline_s=SUBMIT_S
        ).message

    def events(self, job_id: Union[str, bytes], from_sequence: int = 0) -> Iterator[Any]:
        """The job's events with `sequence` of at least from_sequence, to the last one, as they come. A coordinator that
        goes away is waited for, and the log goes on behind the last event that came."""
        request = pb.WatchEventsRequest(job_id=_id_of(job_id), from_sequence=from_sequence)
        lost = None
        while True:
            try:
                with self._channel.stream("assay.v1.Coordinator/WatchEvents", request) as stream:
                    for event in stream:
                        lost = None
                        request.from_sequence = event.sequence + 1
                        yield event
                return
            except AssayError as error:
                lost = lost or time.monotonic()
                if error.status is not Status.UNAVAILABLE or time.monotonic() - lost > AWAY_S:
                    raise
            time.sleep(0.2)

    def wait(self, job_id: Union[str, bytes]) -> Any:
        """Waits for the end of a job; the Job. AssayError with the job's own status and reason when it failed or was
        cancelled."""
        for _ in self.events(job_id):
            continue
        job = self.job(job_id)
        if job.state == pb.JOB_STATE_COMPLETED:
            return job
        if job.state == pb.JOB_STATE_CANCELLED:
            raise AssayError(Status.CANCELLED, f"job {job.job_id.hex()} was cancelled")
        raise AssayError(
            Status.of(job.failure_status or Status.UNKNOWN), job.failure or f"job {job.job_id.hex()} failed"
        )

    def job(self, job_id: Union[str, bytes]) -> Any:
        """The Job as it stands."""
        return self._ask("GetJob", pb.GetJobRequest(job_id=_id_of(job_id)))

    def report(self, job_id: Union[str, bytes]) -> dict[str, Any]:
        """The job's figures as plain values (see report.report_of)."""
        return report_of(self.job(job_id))

    def jobs(self) -> list[Any]:
        """All jobs, the newest first, without results."""
        return list(self._ask("ListJobs").jobs)

    def cancel(self, job_id: Union[str, bytes]) -> None:
        """Asks the job to end; its last event says when it has. A job that is over stays as it is."""
        self._ask("CancelJob", pb.CancelJobRequest(job_id=_id_of(job_id)))

    def pause(self, job_id: Union[str, bytes]) -> None:
        """The job gets no workers until `resume`; what is on loan is finished."""
        self._change("PauseJob", job_id)

    def resume(self, job_id: Union[str, bytes]) -> None:
        """A paused job goes on."""
        self._change("ResumeJob", job_id)

    def retry(self, job_id: Union[str, bytes]) -> None:
        """A job that failed or was cancelled runs again; what it has finished is found in the cache."""
        self._change("RetryJob", job_id)

    def remove(self, job_id: Union[str, bytes]) -> None:
        """Forgets a job that is over. Its records stay in the cache."""
        self._change("RemoveJob", job_id)

    def _change(self, method: str, job_id: Union[str, bytes]) -> None:
        """FAILED_PRECONDITION: the job's state does not allow it. Not repeated: it may have been carried out."""
        self._channel.call(f"assay.v1.Coordinator/{method}", pb.JobRequest(job_id=_id_of(job_id)))

    # --- looking around ---

    def workers(self) -> list[Any]:
        """A ServiceInfo for each registered process: inference workers, quantizer, evaluator."""
        return list(self._ask("ListServices").services)

    def is_serving(self) -> bool:
        """False while the coordinator does not take work. UNAVAILABLE when nobody answers."""
        return self._channel.call("assay.v1.Health/Check").message.status == pb.SERVING_STATUS_SERVING

    # --- responses, embeddings, classes ---

    def generate(
        self,
        model: PathLike,
        prompt: str | None = None,
        *,
        messages: respond.Messages | None = None,
        ids: Sequence[int] = (),
        worker: str | None = None,
        deadline_s: float | None = None,
        credit: int = 64,
        **options: Any,
    ) -> Iterator[Any]:
        """The messages of a response as they come (GenerateReply: text, ids, logprobs; the last one has finish and totals).
        One of prompt, messages (dicts with role and content) and ids. `options` are fields of GenerateRequest: tokens_max,
        temperature, top_k, top_p, min_p, repetition_penalty, stops, seed, ignore_eos, cache_dtype ("f16"), tools, variables,
        now_s. Leaving the loop, or closing the iterator, cancels the rest. `worker` is an endpoint; absent: a ready worker
        of the model's precision."""
        told, channel = self._worker_for(model, worker)
        request = respond.generate_request(told, prompt, messages, ids, **options)
        return respond.generate(channel, request, deadline_s, credit)

    def embed(
        self, model: PathLike, texts: Sequence[str], *, worker: str | None = None, deadline_s: float | None = 300.0
    ) -> list[array.array[float]]:
        """An embedding for each text, floats of 32 bits. deadline_s is for each 1,024 texts."""
        told, channel = self._worker_for(model, worker)
        return respond.embed(channel, told, texts, deadline_s)

    def classify(
        self, model: PathLike, texts: Sequence[respond.Text], *, worker: str | None = None, deadline_s: float | None = 300.0
    ) -> list[dict[str, float]]:
        """The probability of each label, for each text or each pair of texts."""
        told, channel = self._worker_for(model, worker)
        return respond.classify(channel, told, texts, deadline_s)

    def _worker_for(self, model: PathLike, worker: str | None) -> tuple[Any, Channel]:
        """The model as a worker is told, and the connection to the worker, which is kept."""
        told, precision = respond.model_of(model)
        endpoint = worker or respond.pick_worker(self.workers(), precision)
        with self._lock:
            if endpoint not in self._workers:
                self._workers[endpoint] = Channel(endpoint, self._key)
            return told, self._workers[endpoint]

    def invoke(self, method: str, request: Mapping[str, Any] | None = None, *, endpoint: str | None = None) -> Any:
        """Any method of any server by name, with the schemas that the server itself answers: the request and the reply
        are in the JSON mapping of proto3. The reply's dict; for a stream an iterator of dicts. `endpoint` absent: the
        coordinator."""
        target = endpoint or self.endpoint
        with Channel(target, self._key) as known:
            schemas = Schemas(known.call("assay.v1.Reflection/FileDescriptorSet").message.file_descriptor_set)
        channel = Channel(target, self._key, schemas)
        try:
            row = schemas.method(method)
            message = json_format.ParseDict(dict(request or {}), row.request())
        except KeyError:
            channel.close()
            raise AssayError(Status.UNIMPLEMENTED, f"{target} knows no method {method}") from None
        except json_format.ParseError as error:
            channel.close()
            raise AssayError(Status.INVALID_ARGUMENT, f"{method}: {error}") from error
        if row.is_stream:
            return _stream_dicts(channel, method, message)
        with channel:
            return json_format.MessageToDict(channel.call(method, message).message)


def _stream_dicts(channel: Channel, method: str, request: Message) -> Iterator[dict[str, Any]]:
    with channel, channel.stream(method, request) as stream:
        for message in stream:
            yield json_format.MessageToDict(message)
