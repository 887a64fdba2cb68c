"""Which of several evaluators keeps the records of a chunk: the shard with the largest weight for its key (rendezvous
hashing)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import AssayError, Status

SHARD_ID_BYTES = 16
SHARDS_MAX = 256
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Shard:
    shard_id: bytes
    endpoint: str
    leaving: bool  # owns nothing


def _mix(x: int) -> int:
    """The finalizer of SplitMix64."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)


def weight(shard_id: bytes, chunk_key: bytes) -> int:
    return _mix(int.from_bytes(chunk_key[:8], "little") ^ _mix(int.from_bytes(shard_id[:8], "little")))


@dataclass(frozen=True)
class ShardMap:
    epoch: int
    shards: tuple[Shard, ...]  # by shard_id

    def owner(self, chunk_key: bytes) -> Shard | None:
        """None: there is none, or all are leaving. Among equal weights the smaller id wins."""
        owners = [shard for shard in self.shards if not shard.leaving]
        return max(owners, key=lambda shard: weight(shard.shard_id, chunk_key), default=None)


def read_map(message: Any) -> ShardMap:
    """INTERNAL: the map contradicts itself."""
    shards = tuple(Shard(shard.shard_id, shard.endpoint, shard.leaving) for shard in message.shards)
    ids = [shard.shard_id for shard in shards]
    whole = all(len(shard.shard_id) == SHARD_ID_BYTES and shard.endpoint for shard in shards)
    if not whole or ids != sorted(set(ids)) or len(ids) > SHARDS_MAX or message.epoch == 0:
        raise AssayError(
            Status.INTERNAL,
            f"a map of {len(ids)} evaluators, epoch {message.epoch}, is not ordered, not whole or too large",
        )
    return ShardMap(message.epoch, shards)
