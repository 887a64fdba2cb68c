"""The envelope: messages as frames, their ceilings, sockets with all limits set.

What comes in is hostile until it passed the checks here."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

import zmq
from google.protobuf.message import DecodeError, Message

from .errors import AssayError, Status
from .schemas import pb
from .security import Address, Key

Buffer = Union[bytes, bytearray, memoryview]

VERSION = 1
HEADER_BYTES_MAX = 16 << 10
PAYLOAD_BYTES_MAX = 64 << 20
PART_BYTES_MAX = 256 << 20
MESSAGE_BYTES_MAX = 1 << 30
PARTS_MAX = 64
METHOD_BYTES_MAX = 128
SENTENCE_BYTES_MAX = 511
CREDIT_MAX = 1024

PING_S = 1.0
PING_ANEW_S = 0.1
SERVER_SILENT_S = 5.0
PEER_SILENT_S = 10.0
FRESH_S = 3.0

REQUEST, REPLY, STREAM, END = pb.FRAME_KIND_REQUEST, pb.FRAME_KIND_REPLY, pb.FRAME_KIND_STREAM, pb.FRAME_KIND_END
CANCEL, CREDIT, PING, PONG = pb.FRAME_KIND_CANCEL, pb.FRAME_KIND_CREDIT, pb.FRAME_KIND_PING, pb.FRAME_KIND_PONG


@dataclass(frozen=True)
class Incoming:
    """A message that passed the checks."""

    header: Message
    payload: bytes
    attachments: tuple[memoryview, ...]


def has_payload(header: Message) -> bool:
    return header.kind in (REQUEST, STREAM) or (header.kind == REPLY and header.status == 0)


def read_header(data: bytes) -> Message | None:
    """None: this is not a header, and the message is to be dropped."""
    if not 0 < len(data) <= HEADER_BYTES_MAX:
        return None
    try:
        header = pb.Header.FromString(data)
        return header if _is_good(header) else None
    except (DecodeError, UnicodeError):
        return None


def _is_good(header: Message) -> bool:
    return (
        header.version == VERSION
        and header.HasField("call_id")
        and REQUEST <= header.kind <= PONG
        and len(header.method.encode()) <= METHOD_BYTES_MAX
        and len(header.sentence.encode()) <= SENTENCE_BYTES_MAX
        and len(header.attachment_bytes) <= PARTS_MAX - 2
        and (header.kind != REQUEST or header.HasField("method"))
        and (header.kind != CREDIT or header.credit > 0)
        and (header.kind != PONG or header.HasField("instance"))
        and (not header.trace_id or re.fullmatch("[0-9a-f]{32}", header.trace_id) is not None)
    )


def _check_size(what: str, found: int, most: int) -> None:
    if found > most:
        raise AssayError(Status.RESOURCE_EXHAUSTED, f"{what} has {found} bytes, at most {most} are allowed")


def read_parts(header: Message, parts: Sequence[zmq.Frame]) -> Incoming:
    """The parts behind the header. INTERNAL: not those that it announces."""
    announced = list(header.attachment_bytes)
    wanted = 2 + len(announced) if has_payload(header) else 1
    if 1 + len(parts) != wanted or (wanted == 1 and announced):
        raise AssayError(Status.INTERNAL, f"message has {1 + len(parts)} parts, its header announces {wanted}")
    for index, (part, size) in enumerate(zip(parts[1:], announced)):
        if len(part) != size:
            raise AssayError(Status.INTERNAL, f"attachment {index} has {len(part)} bytes, its header announces {size}")
    if parts:
        _check_size("payload", len(parts[0]), PAYLOAD_BYTES_MAX)
    return Incoming(header, parts[0].bytes if parts else b"", tuple(memoryview(part) for part in parts[1:]))


def read_payload(message_type: type[Message], payload: bytes) -> Message:
    """INTERNAL: the bytes are not such a message."""
    try:
        return message_type.FromString(payload)
    except (DecodeError, UnicodeDecodeError) as error:
        raise AssayError(
            Status.INTERNAL, f"payload of {len(payload)} bytes is not a {message_type.DESCRIPTOR.full_name}"
        ) from error


def pack_header(kind: int, call_id: int, **fields: object) -> bytes:
    return pb.Header(version=VERSION, kind=kind, call_id=call_id, **fields).SerializeToString()


def pack_contents(message: Message, attachments: Sequence[Buffer]) -> tuple[list[Buffer], list[int]]:
    """Payload and attachments, and the attachments' sizes. RESOURCE_EXHAUSTED: beyond a ceiling."""
    payload = message.SerializeToString()
    sizes = [memoryview(attachment).nbytes for attachment in attachments]
    _check_size("payload", len(payload), PAYLOAD_BYTES_MAX)
    if len(sizes) > PARTS_MAX - 2:
        raise AssayError(
            Status.RESOURCE_EXHAUSTED, f"message has {len(sizes)} attachments, at most {PARTS_MAX - 2} are allowed"
        )
    for index, size in enumerate(sizes):
        _check_size(f"attachment {index}", size, PART_BYTES_MAX)
    _check_size("message", len(payload) + sum(sizes) + HEADER_BYTES_MAX, MESSAGE_BYTES_MAX)
    return [payload, *attachments], sizes


def shorten(sentence: str) -> str:
    """At most as many bytes as a header takes, cut between characters."""
    return sentence.encode("utf-8", "replace")[:SENTENCE_BYTES_MAX].decode("utf-8", "ignore")


def check_bind(address: Address) -> None:
    """What must hold before a bind: for ipc a directory that is ours alone, and nobody listening on the path."""
    if not address.is_ipc:
        return
    path = address.text[len("ipc://") :]
    folder = os.path.dirname(path) or "."
    try:
        found = os.stat(folder)
    except OSError as error:
        raise AssayError(Status.NOT_FOUND, f'directory "{folder}" of socket "{path}": {error.strerror}') from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise AssayError(
            Status.PERMISSION_DENIED,
            f'directory "{folder}" of socket "{path}" has mode {found.st_mode & 0o7777:o} and owner {found.st_uid}, '
            f"wanted a directory with mode 700 and owner {os.geteuid()}",
        )
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(path) == 0:
            raise AssayError(Status.UNAVAILABLE, f"address in use: a running process listens on {address.text}")


def open_socket(context: zmq.Context, kind: int, linger_ms: int, address: Address) -> zmq.Socket:
    opened = context.socket(kind)
    for option, value in (
        (zmq.IPV6, int(address.is_ipv6)),  # names keep meaning IPv4 addresses
        (zmq.LINGER, linger_ms),
        (zmq.SNDHWM, 4096),
        (zmq.RCVHWM, 4096),
        (zmq.IMMEDIATE, 1),
        (zmq.HANDSHAKE_IVL, 5000),
        (zmq.HEARTBEAT_IVL, 2000),
        (zmq.HEARTBEAT_TIMEOUT, 10000),
        (zmq.HEARTBEAT_TTL, 10000),
        (zmq.RECONNECT_IVL, 20),
        (zmq.RECONNECT_IVL_MAX, 200),
        (zmq.MAXMSGSIZE, PART_BYTES_MAX),
    ):
        opened.setsockopt(option, value)
    if kind == zmq.ROUTER:
        opened.setsockopt(zmq.ROUTER_MANDATORY, 1)
    return opened


def use_key(opened: zmq.Socket, key: Key, server_key: bytes) -> None:
    """Makes a client's or, without a server's key, a server's socket one of CURVE."""
    opened.setsockopt(zmq.CURVE_PUBLICKEY, key.public)
    opened.setsockopt(zmq.CURVE_SECRETKEY, key.secret)
    if server_key:
        opened.setsockopt(zmq.CURVE_SERVERKEY, server_key)
    else:
        opened.setsockopt(zmq.CURVE_SERVER, 1)


class Waker:
    """Wakes the thread that polls `fd`. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self.fd, self._write = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write, False)

    def wake(self) -> None:
        """Does nothing once it is closed."""
        with self._lock, contextlib.suppress(BlockingIOError):  # a full pipe wakes, too
            if not self._closed:
                os.write(self._write, b"\0")

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self.fd, 4096):
                continue

    def close(self) -> None:
        with self._lock:
            self._closed = True
            os.close(self.fd)
            os.close(self._write)
