"""Responses, embeddings and classes by inference workers: which worker, and what goes over the wire."""

from __future__ import annotations

import array
import json
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Tuple, Union

from .channel import Channel, Reply
from .errors import AssayError, Status
from .job import PathLike
from .schemas import pb

ENGINE = "assay-"  # numerics ids of workers that answer users begin with it
TEXTS_AT_ONCE = 1024  # of one call; a worker takes 4,096, and 8 MiB
BYTES_AT_ONCE = 4 << 20
RANKS = {"ready": 2, "leased": 1}

Messages = Union[str, Sequence[Mapping[str, Any]]]
Text = Union[str, Tuple[str, str]]  # or a pair


def model_of(model: PathLike) -> tuple[Any, str]:
    """The model as a worker is told, and its precision: an artifact names its scheme, a checkpoint is of fp32; "" for a
    path that is not to be seen here."""
    path = pathlib.Path(model).absolute()
    manifest = path / "manifest.json"
    precision = ""
    if manifest.exists():
        precision = str(json.loads(manifest.read_text(encoding="utf-8"))["spec"]).partition(":")[0]
    elif path.exists():
        precision = "fp32"
    return pb.Variant(artifact_dir=str(path.resolve())), precision


def pick_worker(services: Iterable[Any], precision: str) -> str:
    """The endpoint of a ready worker, or of one that is at work. NOT_FOUND when there is none."""
    best, found = 0, ""
    for service in services:
        who = service.registration
        fits = (
            who.kind == pb.SERVICE_KIND_INFERENCE
            and who.numerics_id.startswith(ENGINE)
            and precision in ("", who.precision)
        )
        rank = RANKS.get(service.state, 0) if fits and who.endpoint else 0
        if rank > best:
            best, found = rank, who.endpoint
    if not found:
        raise AssayError(
            Status.NOT_FOUND, f"the stack has no ready worker{f' of {precision}' if precision else ''} that answers"
        )
    return found


def generate_request(model: Any, prompt: str | None, messages: Messages | None, ids: Sequence[int], **options: Any) -> Any:
    """A GenerateRequest; options are its fields. Those that are None are left out."""
    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(given.get("cache_dtype"), str):
        given["cache_dtype"] = getattr(pb, f"DTYPE_{given['cache_dtype'].upper()}", 0)
    for name in ("tools", "variables"):
        if name in given and not isinstance(given[name], str):
            given[name] = json.dumps(given[name])
    if prompt is not None:
        given["prompt"] = prompt
    if messages is not None:
        given["messages"] = messages if isinstance(messages, str) else json.dumps(messages)
    try:
        return pb.GenerateRequest(model=model, ids=ids, **given)
    except (TypeError, ValueError) as error:
        raise AssayError(Status.INVALID_ARGUMENT, f"a request for a response: {error}") from error


def generate(channel: Channel, request: Any, deadline_s: float | None, credit: int) -> Iterator[Any]:
    """The messages of a response; leaving the loop, or closing the iterator, cancels the rest."""
    with channel.stream("assay.v1.Respond/Generate", request, deadline_s=deadline_s, credit=credit) as stream:
        yield from stream


def _parts(texts: Sequence[Text]) -> Iterator[Sequence[Text]]:
    """What goes into one call each."""
    first, size = 0, 0
    for index, text in enumerate(texts):
        length = sum(len(each.encode("utf-8", "surrogatepass")) for each in ([text] if isinstance(text, str) else text))
        if index > first and (index - first == TEXTS_AT_ONCE or size + length > BYTES_AT_ONCE):
            yield texts[first:index]
            first, size = index, 0
        size += length
    if first < len(texts):
        yield texts[first:]


def _rows(reply: Reply, tensor: Any, count: int) -> list[array.array[float]]:
    """The rows of an F32 tensor [count, width]."""
    shape = list(tensor.shape)
    if tensor.dtype != pb.DTYPE_F32 or len(shape) != 2 or shape[0] != count or tensor.attachment >= len(reply.attachments):
        raise AssayError(Status.INTERNAL, f"the worker's answer does not fit the {count} texts it was asked for")
    values = array.array("f", bytes(reply.attachments[tensor.attachment]))
    if sys.byteorder == "big":
        values.byteswap()
    if len(values) != count * shape[1]:
        raise AssayError(Status.INTERNAL, f"the worker's answer does not fit the {count} texts it was asked for")
    return [values[i * shape[1] : (i + 1) * shape[1]] for i in range(count)]


def embed(channel: Channel, model: Any, texts: Sequence[str], deadline_s: float | None) -> list[array.array[float]]:
    found: list[array.array[float]] = []
    for part in _parts(texts):
        request = pb.EmbedRequest(model=model, texts=part)
        reply = channel.call("assay.v1.Respond/Embed", request, deadline_s=deadline_s)
        found += _rows(reply, reply.message.embeddings, len(part))
    return found


def classify(channel: Channel, model: Any, texts: Sequence[Text], deadline_s: float | None) -> list[dict[str, float]]:
    found: list[dict[str, float]] = []
    if len({isinstance(text, str) for text in texts}) > 1:
        raise AssayError(Status.INVALID_ARGUMENT, "either all are texts, or all are pairs of texts")
    for part in _parts(texts):
        pairs = [text for text in part if not isinstance(text, str)]
        request = pb.ClassifyRequest(
            model=model,
            texts=[first for first, _ in pairs] or part,
            pairs=[second for _, second in pairs],
        )
        reply = channel.call("assay.v1.Respond/Classify", request, deadline_s=deadline_s)
        rows = _rows(reply, reply.message.probabilities, len(part))
        found += [dict(zip(reply.message.labels, row)) for row in rows]
    return found
