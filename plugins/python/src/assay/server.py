"""The server's side: services with unary methods and streams, Health and Reflection included, as every process of assay
has them.

One thread owns the socket; each call runs on a thread of its own, at most CALLS_MAX at once."""

from __future__ import annotations

import collections
import os
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Callable, Union

import zmq
import zmq.utils.z85
from google.protobuf.message import Message
from zmq.auth.thread import ThreadAuthenticator

from . import wire
from .errors import AssayError, Status
from .schemas import SCHEMAS, Method, pb
from .security import Key, parse_endpoint
from .wire import Buffer

CALLS_MAX = 64
PENDING_MAX = 1024
PENDING_RETRY_S = 0.005

Answer = Union[Message, "tuple[Message, Sequence[Buffer]]"]
Handler = Callable[[Any, "Context"], Any]
"""Unary: takes (request, context), returns an Answer. Stream: the same, and yields Answers. A failure is raised as
AssayError."""


class Context:
    """What a handler knows of its call. Any thread."""

    def __init__(self, server: Server, peer: _Peer, method: Method, incoming: wire.Incoming):
        header = incoming.header
        self.attachments = incoming.attachments
        self.trace_id = header.trace_id
        self._server = server
        self._peer = peer
        self._id = header.call_id
        self._method = method
        self._changed = threading.Condition()
        self._credit = min(header.credit, wire.CREDIT_MAX)
        self._until = time.monotonic() + header.time_left_ms / 1000 if header.HasField("time_left_ms") else None
        self._over = False

    def cancelled(self) -> bool:
        """True when nobody waits for the answer any more: cancelled, past its deadline, the client is gone."""
        return self._over

    def time_left_s(self) -> float | None:
        return None if self._until is None else max(self._until - time.monotonic(), 0.0)

    def wait(self, seconds: float) -> bool:
        """Waits; True as soon as the call is cancelled."""
        with self._changed:
            return self._changed.wait_for(lambda: self._over, seconds)

    def _grant(self, credit: int) -> None:
        with self._changed:
            self._credit = min(self._credit + credit, wire.CREDIT_MAX)
            self._changed.notify_all()

    def _cancel(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _take_credit(self) -> bool:
        """False: the call was cancelled."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._credit > 0)
            self._credit -= 1
            return not self._over


class _Peer:
    """A connection. Only the server's thread touches it, but for `gone`."""

    def __init__(self, routing_id: bytes):
        self.id = routing_id
        self.instance = int.from_bytes(os.urandom(8), "little")
        self.heard = time.monotonic()
        self.calls: dict[int, Context] = {}
        self.pending: collections.deque[Sequence[Buffer]] = collections.deque()
        self.gone = False


class _Gate:
    """Answers ZeroMQ who may connect: those whose keys are in `allowed`."""

    def __init__(self, context: zmq.Context, allowed: Collection[bytes]):
        self._allowed = allowed
        self._thread = ThreadAuthenticator(context)
        self._thread.start()
        self._thread.configure_curve_callback("*", credentials_provider=self)

    def callback(self, _: str, key: bytes) -> bool:
        return zmq.utils.z85.decode(key) in self._allowed

    def close(self) -> None:
        self._thread.stop()


class Server:
    """Serves on an endpoint from the moment it is made. Close it, or use it in `with`."""

    def __init__(
        self,
        endpoint: str,
        services: dict[str, dict[str, Handler]] | None = None,
        key: Key | None = None,
        allowed: Collection[bytes] = (),
    ):
        """`services`: {"assay.v1.Name": {"Method": handler}}. With a secret `key` tcp is CURVE, for clients whose
        public keys (32 bytes each) are in `allowed`; look them up as long as the server lives. AssayError: the endpoint
        cannot be served (see wire.check_bind)."""
        address = parse_endpoint(endpoint)[0]
        wire.check_bind(address)
        secured = key is not None and not address.is_ipc
        if not secured and not address.is_ipc and not address.is_loopback:
            raise AssayError(
                Status.PERMISSION_DENIED, f'endpoint "{endpoint}" is not a loopback address: any other needs CURVE keys'
            )
        self._services = {
            "assay.v1.Health": {"Check": self._check, "Watch": self._watch},
            "assay.v1.Reflection": {"ListServices": self._list, "FileDescriptorSet": self._describe},
            **(services or {}),
        }
        self._serving = True
        self._health = threading.Condition()
        self._posts: collections.deque[tuple[Context, Sequence[Buffer], bool]] = collections.deque()
        self._peers: dict[bytes, _Peer] = {}
        self._calls = 0
        self._closed = False
        self._context = zmq.Context()
        self._gate = _Gate(self._context, allowed) if secured else None
        self._socket = wire.open_socket(self._context, zmq.ROUTER, 1000, address)
        if secured:
            wire.use_key(self._socket, key, b"")
        try:
            self._socket.bind(address.text)
        except zmq.ZMQError as error:
            if self._gate:
                self._gate.close()
            self._socket.close(0)
            self._context.term()
            raise AssayError(Status.UNAVAILABLE, f"cannot listen on {endpoint}: {error.strerror}") from error
        self.endpoint: str = self._socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
        if secured:
            self.endpoint += f"#{key.public.hex()}"
        self._waker = wire.Waker()
        self._thread = threading.Thread(target=self._run, name="assay-server", daemon=True)
        self._thread.start()

    def set_serving(self, serving: bool) -> None:
        """What Health answers."""
        with self._health:
            self._serving = serving
            self._health.notify_all()

    def close(self) -> None:
        """Answers that are under way get a second to leave. Twice is fine."""
        if not self._closed:
            self._closed = True
            with self._health:
                self._health.notify_all()
            self._waker.wake()
            self._thread.join()
            self._waker.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- Health and Reflection ---

    def _status_of(self, service: str) -> int:
        if service and service not in self._services:
            return pb.SERVING_STATUS_SERVICE_UNKNOWN
        return pb.SERVING_STATUS_SERVING if self._serving else pb.SERVING_STATUS_NOT_SERVING

    def _check(self, request: Any, _: Context) -> Answer:
        status = self._status_of(request.service)
        if status == pb.SERVING_STATUS_SERVICE_UNKNOWN:
            raise AssayError(Status.NOT_FOUND, f'{self.endpoint} has no service "{request.service[:200]}"')
        return pb.HealthCheckReply(status=status)

    def _watch(self, request: Any, context: Context) -> Iterator[Answer]:
        sent = None
        while not context.cancelled() and not self._closed:
            status = self._status_of(request.service)
            if status != sent:
                yield pb.HealthCheckReply(status=status)
                sent = status
            with self._health:
                if self._status_of(request.service) == sent:
                    self._health.wait(0.5)  # a cancel is seen within that time
        raise AssayError(Status.UNAVAILABLE, "Health/Watch: the server is going down")

    def _list(self, _: Any, __: Context) -> Answer:
        return pb.ReflectServicesReply(names=list(self._services))

    def _describe(self, _: Any, __: Context) -> Answer:
        return pb.ReflectDescriptorsReply(file_descriptor_set=SCHEMAS.descriptor_set)

    # --- a call's thread ---

    def _post(
        self, context: Context, kind: int, contents: Sequence[Buffer] = (), last: bool = True, **fields: object
    ) -> None:
        header = wire.pack_header(kind, context._id, **fields)
        self._posts.append((context, [header, *contents], last))
        self._waker.wake()

    def _serve(self, handler: Handler, method: Method, request: Message, context: Context) -> None:
        """Runs the handler to its end, and answers exactly once."""
        try:
            if method.is_stream:
                for answer in handler(request, context):
                    if not context._take_credit():
                        raise AssayError(Status.CANCELLED, f"{method.name}: cancelled")
                    contents, fields = self._pack(answer)
                    self._post(context, wire.STREAM, contents, last=False, **fields)
                self._post(context, wire.END)
            else:
                contents, fields = self._pack(handler(request, context))
                self._post(context, wire.REPLY, contents, **fields)
        except AssayError as error:
            self._fail(context, error)
        except Exception as error:  # a handler's mistake is the call's failure, not the server's
            self._fail(context, AssayError(Status.INTERNAL, f"{method.name}: {type(error).__name__}: {error}"))

    @staticmethod
    def _pack(answer: Answer) -> tuple[Sequence[Buffer], dict[str, Any]]:
        message, attachments = answer if isinstance(answer, tuple) else (answer, ())
        contents, sizes = wire.pack_contents(message, attachments)
        return contents, {"attachment_bytes": sizes}

    def _fail(self, context: Context, error: AssayError) -> None:
        kind = wire.END if context._method.is_stream else wire.REPLY
        self._post(context, kind, status=int(error.status), sentence=wire.shorten(error.sentence))

    # --- the server's thread ---

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._waker.fd, zmq.POLLIN)
        tick = time.monotonic()
        while not self._closed:
            waits = any(peer.pending for peer in self._peers.values())
            poller.poll(PENDING_RETRY_S * 1000 if waits else 200)
            self._waker.drain()
            self._receive()
            self._send_posts()
            for peer in list(self._peers.values()):
                self._send_pending(peer)
            if time.monotonic() - tick >= 0.2:
                tick = time.monotonic()
                self._tick(tick)
        for peer in list(self._peers.values()):
            for context in list(peer.calls.values()):
                self._refuse(
                    peer,
                    context._id,
                    AssayError(Status.UNAVAILABLE, f"{context._method.name}: the server is going down"),
                    wire.END if context._method.is_stream else wire.REPLY,
                )
                context._cancel()
            self._send_pending(peer)
        self._socket.close()
        if self._gate:
            self._gate.close()
        self._context.term()

    def _tick(self, now: float) -> None:
        for peer in list(self._peers.values()):
            for context in list(peer.calls.values()):
                if context._until is not None and now >= context._until:
                    kind = wire.END if context._method.is_stream else wire.REPLY
                    self._refuse(
                        peer,
                        context._id,
                        AssayError(Status.DEADLINE_EXCEEDED, f"{context._method.name}: the deadline has passed"),
                        kind,
                    )
                    self._drop(peer, context)
            if now - peer.heard > wire.PEER_SILENT_S:
                self._forget(peer)

    def _drop(self, peer: _Peer, context: Context) -> None:
        peer.calls.pop(context._id, None)
        context._cancel()

    def _forget(self, peer: _Peer) -> None:
        peer.gone = True
        self._peers.pop(peer.id, None)
        for context in list(peer.calls.values()):
            self._drop(peer, context)

    def _receive(self) -> None:
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            header = wire.read_header(frames[1].bytes) if 2 <= len(frames) <= wire.PARTS_MAX + 1 else None
            if header is None:
                continue
            peer = self._peers.get(frames[0].bytes)
            if peer is None and header.kind in (wire.REQUEST, wire.PING):
                peer = self._peers[frames[0].bytes] = _Peer(frames[0].bytes)
            if peer is not None:
                peer.heard = time.monotonic()
                self._on_header(peer, header, frames[2:])

    def _on_header(self, peer: _Peer, header: Message, parts: Sequence[zmq.Frame]) -> None:
        context = peer.calls.get(header.call_id)
        if header.kind == wire.PING:
            self._send(peer, [wire.pack_header(wire.PONG, header.call_id, instance=peer.instance)])
        elif header.kind == wire.CANCEL and context:
            self._drop(peer, context)
        elif header.kind == wire.CREDIT and context:
            context._grant(header.credit)
        elif header.kind == wire.REQUEST and not context:
            try:
                self._open(peer, header, parts)
            except AssayError as error:
                self._refuse(peer, header.call_id, error, wire.REPLY)

    def _open(self, peer: _Peer, header: Message, parts: Sequence[zmq.Frame]) -> None:
        service, _, name = header.method.partition("/")
        handler = self._services.get(service, {}).get(name)
        if handler is None:
            raise AssayError(Status.UNIMPLEMENTED, f'{self.endpoint} has no method "{header.method}"')
        if self._calls >= CALLS_MAX:
            raise AssayError(
                Status.RESOURCE_EXHAUSTED,
                f"{header.method}: {self._calls} calls are under way, at most {CALLS_MAX} are allowed",
            )
        if header.HasField("time_left_ms") and header.time_left_ms == 0:
            raise AssayError(Status.DEADLINE_EXCEEDED, f"{header.method}: the deadline has passed")
        method = SCHEMAS.method(header.method)
        incoming = wire.read_parts(header, parts)
        request = wire.read_payload(method.request, incoming.payload)
        context = Context(self, peer, method, incoming)
        peer.calls[header.call_id] = context
        self._calls += 1
        threading.Thread(
            target=self._serve, args=(handler, method, request, context), name="assay-call", daemon=True
        ).start()

    def _send_posts(self) -> None:
        while self._posts:
            context, frames, last = self._posts.popleft()
            peer = context._peer
            self._calls -= last
            if peer.calls.get(context._id) is context:
                self._send(peer, frames)
                if last:
                    peer.calls.pop(context._id, None)

    def _refuse(self, peer: _Peer, call_id: int, error: AssayError, kind: int) -> None:
        self._send(
            peer, [wire.pack_header(kind, call_id, status=int(error.status), sentence=wire.shorten(error.sentence))]
        )

    def _send(self, peer: _Peer, frames: Sequence[Buffer]) -> None:
        if len(peer.pending) == PENDING_MAX:
            self._forget(peer)  # it does not read
        elif not peer.gone:
            peer.pending.append(frames)
            self._send_pending(peer)

    def _send_pending(self, peer: _Peer) -> None:
        while peer.pending and not peer.gone:
            try:
                self._socket.send_multipart([peer.id, *peer.pending[0]], zmq.DONTWAIT)
            except zmq.Again:
                return
            except zmq.ZMQError:  # EHOSTUNREACH: the connection is no more
                self._forget(peer)
                return
            peer.pending.popleft()
