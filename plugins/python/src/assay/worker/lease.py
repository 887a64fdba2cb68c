"""A lease, checked: what to run, and where the records go."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from ..channel import Reply
from ..errors import AssayError, Status
from ..report import label_of
from ..schemas import pb
from .shards import ShardMap, read_map

KEY_BYTES = 32
CHUNKS_MAX = 4096


@dataclass(frozen=True)
class Variant:
    """A model under one scheme: one artifact."""

    variant_id: bytes
    scheme: str
    compute: str  # "f32", "bf16"; empty: the scheme's own
    label: str  # "int8", "fp32:compute=bf16"
    artifact_dir: str
    artifact_endpoint: str = ""  # who serves it to those who do not see that directory


@dataclass(frozen=True)
class Chunk:
    """Token ids, and the positions [begin, end) that are scored."""

    key: bytes
    ids: memoryview  # int32
    begin: int
    end: int


@dataclass(frozen=True)
class Lease:
    service_id: int
    lease_id: int
    variant: Variant
    evaluator: str  # endpoint
    chunks: tuple[Chunk, ...]
    wants_f16: bool
    shard_map: ShardMap | None  # with several evaluators: a record goes to the owner of its chunk
    first_of_job: bytes  # the key of the job's first chunk; empty when the coordinator does not say
    trace_id: str | None  # of the job: calls that serve the lease carry it


def _wrong(what: str) -> AssayError:
    return AssayError(Status.INTERNAL, f"a lease {what}")


def _ids_of(reply: Reply, wanted: int) -> memoryview:
    tensor = reply.message.ids
    found = reply.attachments[tensor.attachment] if tensor.attachment < len(reply.attachments) else None
    if tensor.dtype != pb.DTYPE_I32 or list(tensor.shape) != [wanted] or found is None or found.nbytes != 4 * wanted:
        raise _wrong(f"has ids that are not an attached I32 [{wanted}]")
    if sys.byteorder != "little":
        raise AssayError(Status.UNIMPLEMENTED, "token ids travel little-endian, this machine is another")
    return memoryview(bytes(found)).cast("i")


def _variant_of(message: Any) -> Variant:
    if len(message.variant_id) != KEY_BYTES or not message.spec.scheme or not message.artifact_dir:
        raise _wrong("has no whole variant: an id of 32 bytes, a scheme and artifact_dir are wanted")
    label = message.label or label_of(message.spec)
    return Variant(
        message.variant_id,
        message.spec.scheme,
        message.spec.compute,
        label,
        message.artifact_dir,
        message.artifact_endpoint,
    )


def read_lease(service_id: int, reply: Reply) -> Lease | None:
    """None: there is no work. INTERNAL: the lease contradicts itself."""
    message = reply.message
    count = len(message.chunk_keys)
    if count == 0:
        return None
    lengths = {count, len(message.chunk_tokens), len(message.score_begin), len(message.score_end)}
    if len(lengths) != 1 or count > CHUNKS_MAX:
        raise _wrong(f"has lists of {sorted(lengths)} chunks, wanted one length of at most {CHUNKS_MAX}")
    ids = _ids_of(reply, sum(message.chunk_tokens))
    chunks = []
    at = 0
    rows = zip(message.chunk_keys, message.chunk_tokens, message.score_begin, message.score_end)
    for key, tokens, begin, end in rows:
        if len(key) != KEY_BYTES or not 0 <= begin < end <= tokens:
            raise _wrong(f"has a chunk with a key of {len(key)} bytes and {tokens} tokens, scored in [{begin}, {end})")
        chunks.append(Chunk(key, ids[at : at + tokens], begin, end))
        at += tokens
    if not message.evaluator_endpoint:
        raise _wrong("does not say where records go")
    return Lease(
        service_id=service_id,
        lease_id=message.lease_id,
        variant=_variant_of(message.variant),
        evaluator=message.evaluator_endpoint,
        chunks=tuple(chunks),
        wants_f16=message.record_dtype == pb.DTYPE_F16,
        shard_map=read_map(message.shard_map) if message.HasField("shard_map") else None,
        first_of_job=message.first_chunk_key,
        trace_id=message.trace_id or None,
    )
