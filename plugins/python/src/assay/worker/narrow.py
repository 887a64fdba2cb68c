"""Records of f16, and the share of chunks that is sent as f32 too, so that the evaluator can say what f16 costs."""

from __future__ import annotations

import array
import math
import struct

from ..errors import AssayError, Status

try:
    import numpy
except ImportError:  # an engine without it: slower, the same bits
    numpy = None

MEASURED_ONE_IN = 16
F16_OVERFLOW = 65520.0  # from here on the nearest float16 is infinity


def is_measured(key: bytes, first_of_job: bytes) -> bool:
    """One chunk in 16, chosen by its key, and the first of the job: the same for all variants and workers."""
    return key[0] % MEASURED_ONE_IN == 0 or key == first_of_job


def narrow(key: bytes, data: bytes, width: int) -> bytes:
    """float32 rounded to the nearest float16, ties to even. INVALID_ARGUMENT: a value that float16 cannot hold."""
    if numpy is not None:
        with numpy.errstate(over="ignore"):
            halves = numpy.frombuffer(data, "<f4").astype("<f2")
        if not numpy.isfinite(halves).all():
            raise _refusal(key, data, width)
        return halves.tobytes()
    values = array.array("f", data)
    try:
        narrowed = struct.pack(f"<{len(values)}e", *values)
    except OverflowError:
        raise _refusal(key, data, width) from None
    if not all(map(math.isfinite, values)):
        raise _refusal(key, data, width)
    return narrowed


def _refusal(key: bytes, data: bytes, width: int) -> AssayError:
    values = array.array("f", data)
    index, value = next((i, v) for i, v in enumerate(values) if not abs(v) < F16_OVERFLOW)
    return AssayError(
        Status.INVALID_ARGUMENT,
        f"chunk {key.hex()} has a hidden value of {value:g} in row {index // width}, which f16 cannot hold; "
        "use records of f32",
    )
