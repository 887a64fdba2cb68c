"""A job as a dict or a file, and as the request that a coordinator takes."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any, Union

from google.protobuf import json_format
from google.protobuf.message import Message

from .errors import AssayError, Status
from .schemas import pb

PathLike = Union[str, pathlib.Path]


def parse_spec(text: str) -> Message:
    """A VariantSpec from "int4:group_size=64:compute=bf16". The coordinator judges what it says."""
    scheme, *fields = text.split(":")
    spec = pb.VariantSpec(scheme=scheme)
    for key, equals, value in (field.partition("=") for field in fields):
        if not equals:
            raise AssayError(Status.INVALID_ARGUMENT, f"variant {text}: expected key=value, found '{key}'")
        if key == "compute":
            spec.compute = value
        else:
            spec.parameters.add(key=key, value=value)
    return spec


def read_job_file(path: PathLike) -> dict[str, Any]:
    """A job file of `assay eval --job`, YAML (with PyYAML) or JSON. Its paths become absolute."""
    path = pathlib.Path(path)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        job = json.loads(text)
    else:
        try:
            import yaml  # noqa: PLC0415  (only for those who have YAML)
        except ImportError as error:
            raise AssayError(Status.FAILED_PRECONDITION, f"{path}: reading YAML needs PyYAML; JSON does not") from error
        job = yaml.safe_load(text)
    if not isinstance(job, dict):
        raise AssayError(Status.INVALID_ARGUMENT, f"{path}: a job is an object, found {type(job).__name__}")
    for key in ("model", "corpus"):
        if isinstance(job.get(key), str):
            job[key] = str((path.resolve().parent / job[key]).resolve())
    return job


def _corpus_of(job: Mapping[str, Any]) -> tuple[str, bytes]:
    """Name and text: of a file, or given as bytes."""
    corpus = job.get("corpus")
    if isinstance(corpus, (bytes, bytearray, memoryview)):
        return str(job.get("corpus_name", "corpus")), bytes(corpus)
    if not isinstance(corpus, (str, pathlib.Path)):
        raise AssayError(Status.INVALID_ARGUMENT, "corpus: a file's path or the text as bytes is wanted")
    try:
        return pathlib.Path(corpus).name, pathlib.Path(corpus).read_bytes()
    except OSError as error:
        raise AssayError(Status.NOT_FOUND, f"corpus {corpus}: {error.strerror}") from error


def request_of(job: Mapping[str, Any]) -> tuple[Message, bytes]:
    """The SubmitJobRequest and the corpus, its attachment.

    Keys are those of a job file (proto/jobfile.proto): model, reference ("fp32"), variants, corpus (a path, or bytes
    with corpus_name), protocol ("llamacpp-512"), chunks (0: all), thresholds, name; `out` is left to the caller. Any
    other field of SubmitJobRequest may stand under its own name. INVALID_ARGUMENT: a key that is unknown or missing, a
    value of the wrong kind."""
    ours = {"model", "reference", "variants", "corpus", "corpus_name", "chunks", "out"}
    for key in ("model", "variants", "corpus"):
        if not job.get(key):
            raise AssayError(Status.INVALID_ARGUMENT, f"{key} is missing")
    if isinstance(job["variants"], str):
        raise AssayError(Status.INVALID_ARGUMENT, 'variants: a list is wanted, as ["int8"]')
    request = pb.SubmitJobRequest(protocol="llamacpp-512")
    try:
        json_format.ParseDict({key: value for key, value in job.items() if key not in ours}, request)
        request.chunks_max = int(job.get("chunks", 0))
    except (json_format.ParseError, ValueError, TypeError) as error:
        raise AssayError(Status.INVALID_ARGUMENT, f"the job cannot be read: {error}") from error
    name, text = _corpus_of(job)
    request.model_dir = str(pathlib.Path(job["model"]).resolve())
    request.reference.CopyFrom(parse_spec(job.get("reference", "fp32")))
    request.variants.extend(parse_spec(variant) for variant in job["variants"])
    request.corpus_name = name
    request.corpus.CopyFrom(pb.Tensor(dtype=pb.DTYPE_U8, shape=[len(text)], attachment=0))
    return request, text
