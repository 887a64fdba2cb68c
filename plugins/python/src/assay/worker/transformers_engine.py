"""The engine on transformers: whatever AutoModel loads, on any device of torch. Needs torch and transformers."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence as ListOf

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # an artifact is a directory: nothing is looked up, nothing is fetched

import torch  # noqa: E402  (after what decides how it behaves)
import transformers  # noqa: E402

from ..errors import AssayError, Status  # noqa: E402
from .engine import Sequence  # noqa: E402
from .lease import Variant  # noqa: E402

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
# The default compute of the schemes that have another than f32.
COMPUTES = {"bf16": "bf16"}


def _versions(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _device_name(device: torch.device) -> str:
    """What of a device decides the bits: "cpu", "cuda-sm90"."""
    if device.type != "cuda":
        return device.type
    major, minor = torch.cuda.get_device_capability(device)
    return f"cuda-sm{major}{minor}"


def _hold_to(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """What a loader leaves in the checkpoint's dtype follows the worker's. bitsandbytes leaves all that is not
    quantized, rounds dequantized weights to it, and has a path on the CPU that multiplies in bf16."""
    for parameter in model.parameters():
        if parameter.dtype in DTYPES.values():
            parameter.data = parameter.data.to(dtype)
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            state.dtype = dtype
        if dtype == torch.float32 and getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False


class TransformersEngine:
    """`dtype` "auto" is what the variant's compute says, f32 for most schemes; f32, bf16 or f16 force it, and the
    numerics id says so.

    Batches are always `batch` sequences, short ones filled up with their last, so that a record does not depend on the
    company it ran in."""

    def __init__(self, precision: str, device: str = "cpu", dtype: str = "auto", batch: int = 1, threads: int = 0):
        """INVALID_ARGUMENT: a device or dtype that torch does not have here."""
        try:
            self._device = torch.device(device)
            torch.empty(1, device=self._device)
        except (RuntimeError, AssertionError) as error:
            raise AssayError(Status.INVALID_ARGUMENT, f"torch has no device '{device}': {error}") from error
        if threads:
            torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        self._forced = dtype != "auto"
        self._compute = dtype if self._forced else COMPUTES.get(precision, "f32")
        self._batch = batch
        self._model: torch.nn.Module | None = None
        self.device = device
        self.threads = torch.get_num_threads()
        self.width = 0
        name = str(DTYPES[self._compute]).removeprefix("torch.")
        parts = ["transformers", transformers.__version__, "torch", torch.__version__, name, _device_name(self._device)]
        self.numerics_id = "-".join(parts + ([f"b{batch}"] if batch > 1 else []))

    def load(self, variant: Variant) -> None:
        compute = variant.compute or COMPUTES.get(variant.scheme, "f32")
        if not self._forced and compute != self._compute:
            raise AssayError(
                Status.FAILED_PRECONDITION,
                f"{variant.label} computes in {compute}, this worker in {self._compute}: start one with --dtype {compute}",
            )
        self._model = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if not os.path.isdir(variant.artifact_dir):
            raise AssayError(
                Status.NOT_FOUND, f"the artifact {variant.artifact_dir} is not there: is its file system shared?"
            )
        dtype_key = "dtype" if _versions(transformers.__version__) >= (4, 56) else "torch_dtype"
        try:
            model = transformers.AutoModel.from_pretrained(
                variant.artifact_dir,
                local_files_only=True,
                trust_remote_code=False,
                **{dtype_key: DTYPES[self._compute]},
            )
        except torch.OutOfMemoryError as error:
            raise AssayError(Status.RESOURCE_EXHAUSTED, f"no memory to load {variant.label}: {error}") from error
        except (ImportError, OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
            sentence = " ".join(str(error).split())[:300]
            raise AssayError(
                Status.FAILED_PRECONDITION,
                f"transformers cannot load {variant.label} from {variant.artifact_dir}: {sentence}",
            ) from error
        _hold_to(model, DTYPES[self._compute])
        self._model = model.to(self._device).eval()
        self.width = int(model.config.get_text_config().hidden_size)

    def run(self, sequences: ListOf[Sequence]) -> list[bytes]:
        ids = torch.stack(
            [torch.frombuffer(bytearray(sequence.ids), dtype=torch.int32) for sequence in sequences]
        ).long()
        missing = self._batch - len(sequences)
        if missing > 0:
            ids = torch.cat([ids, ids[-1:].expand(missing, -1)])
        try:
            with torch.inference_mode():
                hidden = self._model(input_ids=ids.to(self._device), use_cache=False).last_hidden_state
                rows = [hidden[i, s.begin : s.end].float().cpu().contiguous() for i, s in enumerate(sequences)]
        except torch.OutOfMemoryError as error:
            raise AssayError(
                Status.RESOURCE_EXHAUSTED, f"no memory for {self._batch} chunks of {ids.shape[1]} tokens: {error}"
            ) from error
        return [row.numpy().astype("<f4", copy=False).tobytes() for row in rows]
