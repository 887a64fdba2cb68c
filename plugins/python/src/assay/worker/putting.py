"""Puts the records of a batch to the evaluators that own their chunks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, TypeVar

from ..channel import Channel
from ..errors import AssayError, Status
from ..schemas import pb
from ..security import Key
from .lease import Lease
from .member import jittered
from .shards import ShardMap, read_map

log = logging.getLogger("assay.worker")

PASSING = (Status.UNAVAILABLE, Status.RESOURCE_EXHAUSTED, Status.DEADLINE_EXCEEDED)
PUT_RECORDS_MAX = 60
PUT_BYTES_MAX = 64 << 20
PUT_S = 30.0
RETRY_S = 2.0
ATTEMPTS_MAX = 5
BACKOFF_S = 0.1
BACKOFF_MAX_S = 5.0
REDIRECTS_MAX = 16  # of one batch, because the evaluators changed
ASK_MAP_S = 2.0
ELSEWHERE_S = 10.0  # so long the others are asked who has the share of one that is gone

Answer = TypeVar("Answer")


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


def again_and_again(attempt: Callable[[], Answer], hurried: threading.Event) -> Answer:
    """Until it works, the failure does not pass, or time is up."""
    started, backoff = time.monotonic(), BACKOFF_S
    for count in range(1, ATTEMPTS_MAX + 1):
        try:
            return attempt()
        except AssayError as error:
            late = count == ATTEMPTS_MAX or time.monotonic() - started >= RETRY_S
            if late or error.status not in PASSING or hurried.wait(jittered(backoff)):
                raise
        backoff = min(2 * backoff, BACKOFF_MAX_S)
    raise AssertionError("the last attempt returns or raises")


class Putter:
    """Connections to evaluators. One thread calls `put_all`; `cancel_all` may come from any."""

    def __init__(self, numerics_id: str, key: Key | None, hurried: threading.Event):
        self._numerics_id = numerics_id
        self._key = key
        self._hurried = hurried
        self._lock = threading.Lock()
        self._channels: dict[str, Channel] = {}

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()

    def cancel_all(self) -> None:
        with self._lock:
            channels = list(self._channels.values())
        for channel in channels:
            channel.cancel_all()

    def put_all(self, lease: Lease, records: Sequence[Record], stored: Callable[[Sequence[Record]], None]) -> None:
        """Tells `stored` of the records that an evaluator has acknowledged. AssayError: for the others there is no
        way."""
        shards, redirects = lease.shard_map, 0
        left = list(records)
        while left:
            endpoint, group = self._group_of(lease, shards, left)
            try:
                moved, told = again_and_again(
                    lambda e=endpoint, g=group, m=shards: self._put(lease, e, g, m), self._hurried
                )
            except AssayError as error:
                moved, told = group, self._ask_others(lease, endpoint, shards, error)
            there = [record for record in group if not any(record is other for other in moved)]
            stored(there)
            left = [record for record in left if not any(record is other for other in there)]
            if told:
                redirects += 1
                log.info("the evaluators changed, records go elsewhere epoch=%d", told.epoch)
                if redirects > REDIRECTS_MAX:
                    raise AssayError(
                        Status.UNAVAILABLE, f"the evaluators changed {redirects} times while records were on their way"
                    )
                shards = told

    def _group_of(self, lease: Lease, shards: ShardMap | None, left: Sequence[Record]) -> tuple[str, list[Record]]:
        """Records that go to one evaluator in one message."""
        target, group, size = "", [], 0
        for record in left:
            owner = shards.owner(record.key) if shards else None
            endpoint = owner.endpoint if owner else lease.evaluator
            target = target or endpoint
            if endpoint == target:
                group.append(record)
                size += len(record.data)
            if len(group) == PUT_RECORDS_MAX or size >= PUT_BYTES_MAX:
                break
        return target, group

    def _channel(self, endpoint: str) -> Channel:
        with self._lock:
            if endpoint not in self._channels:
                self._channels[endpoint] = Channel(endpoint, self._key)
            return self._channels[endpoint]

    def _call(self, lease: Lease, endpoint: str, request: Any, data: Sequence[bytes], deadline_s: float) -> Any:
        channel = self._channel(endpoint)
        reply = channel.call(
            "assay.v1.Records/Put", request, attachments=data, deadline_s=deadline_s, trace_id=lease.trace_id
        )
        return reply.message

    def _put(
        self, lease: Lease, endpoint: str, group: Sequence[Record], shards: ShardMap | None
    ) -> tuple[list[Record], ShardMap | None]:
        """What this evaluator does not own, and the map that says who does."""
        request = pb.PutRecordsRequest(epoch=shards.epoch if shards else None)
        for index, record in enumerate(group):
            tensor = pb.Tensor(dtype=record.dtype, shape=[record.rows, record.width], attachment=index)
            request.records.add(
                chunk_key=record.key, variant_id=lease.variant.variant_id, numerics_id=self._numerics_id, hidden=tensor
            )
        reply = self._call(lease, endpoint, request, [record.data for record in group], PUT_S)
        moved = [group[index] for index in sorted(set(reply.moved)) if index < len(group)]
        told = read_map(reply.shard_map) if reply.HasField("shard_map") and shards else None
        if reply.stored + len(moved) != len(group):
            raise AssayError(
                Status.UNAVAILABLE, f"the evaluator at {endpoint} stored {reply.stored} records of {len(group)}"
            )
        if moved and not told:
            raise AssayError(Status.INTERNAL, f"the evaluator at {endpoint} refused records and named no other one")
        return moved, told

    def _ask_others(self, lease: Lease, gone: str, shards: ShardMap | None, error: AssayError) -> ShardMap:
        """An owner that is gone: the others know who has its share, once the coordinator has told them. Raises `error`
        when nobody does."""
        others = [shard.endpoint for shard in shards.shards if shard.endpoint != gone] if shards else []
        until, backoff = time.monotonic() + ELSEWHERE_S, BACKOFF_S
        while others and error.status in PASSING and time.monotonic() < until:
            for endpoint in others:
                try:
                    reply = self._call(lease, endpoint, pb.PutRecordsRequest(epoch=shards.epoch), (), ASK_MAP_S)
                except AssayError:
                    continue
                if reply.HasField("shard_map"):
                    return read_map(reply.shard_map)
            if self._hurried.wait(jittered(backoff)):
                break
            backoff = min(2 * backoff, BACKOFF_MAX_S)
        raise error
