"""Artifacts where they are wanted: in place when their directory is visible here, else fetched in verified pieces
(service Artifacts)."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from typing import Any, Callable

from ..channel import Channel, Retry
from ..errors import AssayError, Status
from ..schemas import pb
from ..security import Key
from .lease import Variant

log = logging.getLogger("assay.worker")

DESCRIBE_S = 1800.0  # who has it digests it first
READ_S = 60.0
DIGEST_BYTES = 32
FILES_MAX = 8192
FILE_BYTES_MAX = 1 << 49
PIECE_BYTES_MAX = 256 << 20
DAMAGED_MAX = 4  # times that one piece may come damaged
RETRY = Retry(statuses=(Status.UNAVAILABLE, Status.RESOURCE_EXHAUSTED))


def find_artifact(variant: Variant, cache_dir: str, key: Key | None, is_stopping: Callable[[], bool]) -> str:
    """A directory that holds the artifact. What was fetched stands under its id in cache_dir, whole or not at all.
    DATA_LOSS: a piece comes damaged again and again. UNAVAILABLE: stopped, or nobody answers."""
    seen = os.path.isfile(os.path.join(variant.artifact_dir, "manifest.json"))
    if seen or not variant.artifact_endpoint or not cache_dir:
        return variant.artifact_dir
    target = os.path.join(cache_dir, variant.variant_id.hex())
    if os.path.isdir(target):
        return target
    try:
        os.makedirs(cache_dir, mode=0o700, exist_ok=True)
        scratch = tempfile.mkdtemp(prefix=".fetch-", dir=cache_dir)
    except OSError as error:
        raise AssayError(Status.RESOURCE_EXHAUSTED, f"cannot write to {cache_dir}: {error.strerror}") from error
    try:
        with Channel(variant.artifact_endpoint, key) as channel:
            fetched = _fetch(channel, variant, scratch, is_stopping)
        if not os.path.isdir(target):  # another worker of this host may have been faster
            os.rename(scratch, target)
        log.info("artifact fetched variant=%s bytes=%d dir=%s", variant.label, fetched, target)
    except OSError as error:
        raise AssayError(
            Status.RESOURCE_EXHAUSTED, f"cannot write the artifact to {scratch}: {error.strerror}"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _check(description: Any) -> None:
    """INTERNAL: a name that is not a plain file's, or sizes that contradict each other."""
    names = [file.name for file in description.files]
    plain = all(name and "/" not in name and "\0" not in name and not name.startswith(".") for name in names)
    piece = description.piece_bytes
    sizes = 0 < piece <= PIECE_BYTES_MAX and all(
        file.bytes <= FILE_BYTES_MAX and len(file.piece_digests) == DIGEST_BYTES * -(-file.bytes // piece)
        for file in description.files
    )
    if not plain or not sizes or names != sorted(set(names)) or not 0 < len(names) <= FILES_MAX:
        raise AssayError(Status.INTERNAL, f"the description of an artifact of {len(names)} files contradicts itself")


def _fetch(channel: Channel, variant: Variant, folder: str, is_stopping: Callable[[], bool]) -> int:
    """The number of bytes."""
    request = pb.DescribeArtifactRequest(variant_id=variant.variant_id)
    description = channel.call("assay.v1.Artifacts/Describe", request, deadline_s=DESCRIBE_S, retry=RETRY).message
    _check(description)
    total = 0
    for index, file in enumerate(description.files):
        with open(os.path.join(folder, file.name), "xb") as out:
            for piece in range(len(file.piece_digests) // DIGEST_BYTES):
                if is_stopping():
                    raise AssayError(Status.UNAVAILABLE, "the worker is shutting down")
                total += out.write(_read(channel, variant, description, index, piece))
    return total


def _read(channel: Channel, variant: Variant, description: Any, index: int, piece: int) -> bytes:
    file, size = description.files[index], description.piece_bytes
    wanted = file.piece_digests[DIGEST_BYTES * piece : DIGEST_BYTES * (piece + 1)]
    request = pb.ReadPieceRequest(variant_id=variant.variant_id, digest=description.digest, file=index, piece=piece)
    for _ in range(DAMAGED_MAX):
        reply = channel.call("assay.v1.Artifacts/Read", request, deadline_s=READ_S, retry=RETRY)
        number = reply.message.bytes.attachment
        data = bytes(reply.attachments[number]) if number < len(reply.attachments) else b""
        whole = len(data) == min(size, file.bytes - size * piece)
        if whole and hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest() == wanted:
            return data
    raise AssayError(
        Status.DATA_LOSS,
        f"piece {piece} of {file.name} of {variant.label} came damaged {DAMAGED_MAX} times from {channel.endpoint}",
    )
