"""python -m assay.worker: an inference worker on transformers, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

from ..client import data_dir, default_endpoint
from ..errors import AssayError, Status
from ..security import read_public_key, read_secret_key, with_server_key
from .worker import Worker, WorkerOptions

DTYPES = ("auto", "f32", "bf16", "f16")
EXIT_USAGE, EXIT_INTERNAL, EXIT_UNAVAILABLE, EXIT_BAD_INPUT, EXIT_PERMISSION = 3, 5, 6, 4, 9
EXIT_CODES = {
    Status.UNAVAILABLE: EXIT_UNAVAILABLE,
    Status.PERMISSION_DENIED: EXIT_PERMISSION,
    Status.INTERNAL: EXIT_INTERNAL,
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        print(f"assay.worker: {message}", file=sys.stderr)
        sys.exit(EXIT_USAGE)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _add(
    parser: argparse.ArgumentParser, name: str, help_text: str, default: str | None = None, **rest: object
) -> None:
    """An option with its environment variable, as every program of assay has them."""
    variable = "ASSAY_" + name.upper().replace("-", "_")
    default = os.environ.get(variable) or default
    parser.add_argument(f"--{name}", default=default, help=f"{help_text} [{variable}]", **rest)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m assay.worker",
        description="Runs chunks of one scheme on loan from the coordinator, with transformers.",
        allow_abbrev=False,
    )
    _add(parser, "precision", "the scheme to run, as fp32 (wanted)", metavar="SCHEME")
    _add(parser, "coordinator", "the coordinator, DATA/run/coordinator.sock if not given", metavar="ENDPOINT")
    _add(parser, "data", "data directory of the stack (else $XDG_DATA_HOME/assay)", metavar="DIR")
    _add(parser, "listen", "where to serve Health, a socket beside the coordinator's if not given", metavar="ENDPOINT")
    _add(parser, "device", "where to run: cpu, cuda:0", default="cpu", metavar="DEVICE")
    _add(
        parser,
        "dtype",
        "compute in f32, bf16 or f16; auto: as the variant says",
        default="auto",
        metavar="DTYPE",
    )
    _add(parser, "batch", "chunks of one forward pass, 16 on cuda, else 1", type=_positive, metavar="N")
    _add(parser, "threads", "threads that compute on the CPU", type=_positive, metavar="N")
    _add(parser, "key", "secret key file to connect with, as assay keygen writes it", metavar="FILE")
    _add(parser, "server-public-key", "public key file of the coordinator, if the endpoint has no key", metavar="FILE")
    options = parser.parse_args(arguments)
    if not options.precision:
        parser.error("--precision: a scheme is wanted, as fp32")
    if options.dtype not in DTYPES:
        parser.error(f"--dtype: found '{options.dtype}', wanted one of {', '.join(DTYPES)}")
    if options.batch is None:
        options.batch = 16 if options.device.startswith("cuda") else 1
    options.coordinator = options.coordinator or default_endpoint(options.data)
    return options


def _listen_of(options: argparse.Namespace) -> str:
    """A socket in the stack's directory, or in one of our own where the coordinator is elsewhere."""
    if options.listen:
        return options.listen
    local = options.coordinator.split(",")[0]
    home = (
        os.path.dirname(local[len("ipc://") :])
        if local.startswith("ipc://")
        else os.path.join(data_dir(options.data), "run")
    )
    os.makedirs(home, mode=0o700, exist_ok=True)
    return f"ipc://{home}/transformers-{os.getpid()}.sock"


def _log_to_stderr() -> None:
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s worker %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logger = logging.getLogger("assay")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _run(options: argparse.Namespace) -> int:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        from .transformers_engine import TransformersEngine  # noqa: PLC0415  (torch takes seconds; --help does not need it)
    except ImportError as error:
        raise AssayError(
            Status.FAILED_PRECONDITION,
            f"the worker needs torch and transformers (pip install 'plugins/python[worker]'): {error}",
        ) from error
    engine = TransformersEngine(options.precision, options.device, options.dtype, options.batch, options.threads or 0)
    key = read_secret_key(options.key) if options.key else None
    server = read_public_key(options.server_public_key) if options.server_public_key else None
    settings = WorkerOptions(
        coordinator=with_server_key(options.coordinator, server),
        listen=_listen_of(options),
        precision=options.precision,
        cache_dir=str(data_dir(options.data) / "artifacts"),
        batch=options.batch,
        key=key,
    )
    worker = Worker(settings, engine)
    logging.getLogger("assay.worker").info(
        "working precision=%s device=%s numerics=%s endpoint=%s",
        options.precision,
        options.device,
        engine.numerics_id,
        worker.endpoint,
    )
    while not stop.wait(0.5) and worker.is_alive():
        continue
    died = not stop.is_set()
    worker.stop()
    return EXIT_INTERNAL if died else 0


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    _log_to_stderr()
    try:
        return _run(options)
    except AssayError as error:
        print(f"assay.worker: {error.sentence}", file=sys.stderr)
        return EXIT_CODES.get(error.status, EXIT_BAD_INPUT)


if __name__ == "__main__":
    sys.exit(main())
