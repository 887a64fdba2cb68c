"""The client's side of a connection: unary calls and streams with credit, deadlines, cancellation, liveness.

A channel has one thread that owns the socket; calls may come from any thread. A call waits for the server, is pinged
along while it is open, and ends with UNAVAILABLE when the server falls silent, is restarted or drops the connection.
"""

from __future__ import annotations

import collections
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import zmq
from google.protobuf.message import Message
from zmq.utils.monitor import parse_monitor_message

from . import wire
from .errors import AssayError, Status
from .schemas import SCHEMAS, Method, Schemas
from .security import Key, choose
from .wire import Buffer

COPIED_BYTES_MAX = 64 << 10  # longer messages are sent from where they lie


@dataclass(frozen=True)
class Retry:
    """Again after UNAVAILABLE, within the deadline. Not for calls that must not be carried out twice: a call that was
    sent may have been."""

    attempts: int = 8
    first_s: float = 0.1
    max_s: float = 5.0
    statuses: tuple[Status, ...] = (Status.UNAVAILABLE,)

    def pauses(self) -> Iterator[float]:
        """One for each attempt but the first: doubled each time, 20 % more or less."""
        for attempt in range(self.attempts - 1):
            yield min(self.first_s * 2**attempt, self.max_s) * random.uniform(0.8, 1.2)


@dataclass(frozen=True)
class Reply:
    message: Any
    attachments: tuple[memoryview, ...] = ()


class _Call:
    """One call. Everything is under the channel's lock."""

    def __init__(self, channel: Channel, call_id: int, method: Method, deadline: float | None, trace_id: str | None):
        self.channel = channel
        self.id = call_id
        self.method = method
        self.deadline = deadline
        self.trace_id = trace_id
        self.started = time.monotonic()
        self.changed = threading.Condition(channel.lock)
        self.request: tuple[list[Buffer], list[int]] | None = None
        self.granted = 0  # credit of the REQUEST; 0: unary
        self.credit = 0  # messages that may still come
        self.credit_due = 0  # messages taken, not granted anew
        self.sent = False  # the server may be working on it
        self.instance: int | None = None
        self.incoming: collections.deque[wire.Incoming] = collections.deque()
        self.error: AssayError | None = None
        self.ended = False

    def end(self, error: AssayError | None) -> None:
        if not self.ended:
            self.ended = True
            self.error = error
            self.changed.notify_all()

    def fail(self, status: Status, sentence: str) -> None:
        self.end(AssayError(status, f"{self.method.name}: {sentence}"))

    def time_left(self) -> float | None:
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0)


class Stream:
    """The messages of a stream, in order, as an iterator; the stream's failure is raised behind them. Close it, or use
    it in `with`."""

    def __init__(self, call: _Call):
        self._call = call

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        reply = self.next()
        if reply is None:
            raise StopIteration
        return reply.message

    def next(self, wait_s: float | None = None) -> Reply | None:
        """The next message; None at the end. TimeoutError: none within wait_s, the stream goes on."""
        call, channel = self._call, self._call.channel
        until = None if wait_s is None else time.monotonic() + wait_s
        with channel.lock:
            while not call.incoming and not call.ended:
                times = [t for t in (until, call.deadline) if t is not None]
                left = min(times) - time.monotonic() if times else None
                if left is not None and left <= 0:
                    if call.deadline is None or time.monotonic() < call.deadline:
                        raise TimeoutError(f"{call.method.name}: nothing came within {wait_s} s")
                    call.fail(Status.DEADLINE_EXCEEDED, "the stream has not ended before its deadline")
                    break
                call.changed.wait(left)
            if not call.incoming:
                if call.error:
                    raise call.error
                return None
            incoming = call.incoming.popleft()
            call.credit_due += 1
            if not call.ended and call.credit_due >= (call.granted + 1) // 2:
                channel.post("credit", call)
        return Reply(wire.read_payload(call.method.reply, incoming.payload), incoming.attachments)

    def close(self) -> None:
        """Cancels what is left of it."""
        self._call.channel.leave(self._call)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Channel:
    """A connection to one server, with any number of calls at once. Close it, or use it in `with`."""

    def __init__(self, endpoint: str, key: Key | None = None, schemas: Schemas = SCHEMAS):
        """Returns at once: whether a server is there shows with the first call. `schemas` other than ours come from
        reflection."""
        address = choose(endpoint, key)
        self.endpoint = address.text
        self.schemas = schemas
        self.lock = threading.Lock()
        self._calls: dict[int, _Call] = {}
        self._posts: collections.deque[tuple[str, _Call]] = collections.deque()
        self._last_id = 0
        self._ready = False  # a PONG came on this connection
        self._instance: int | None = None
        self._heard = float("-inf")
        self._active = float("-inf")  # the last call that came after a pause
        self._ping_at = float("inf")
        self._closed = False
        self._context = zmq.Context()
        self._socket = wire.open_socket(self._context, zmq.DEALER, 200, address)
        if key and address.server_key:
            wire.use_key(self._socket, key, address.server_key)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        self._socket.connect(self.endpoint)
        self._waker = wire.Waker()
        self._thread = threading.Thread(target=self._run, name="assay-channel", daemon=True)
        self._thread.start()

    # --- any thread ---

    def call(
        self,
        method: str,
        request: Message | None = None,
        *,
        deadline_s: float | None = 30.0,
        attachments: Sequence[Buffer] = (),
        retry: Retry | None = None,
        trace_id: str | None = None,
    ) -> Reply:
        """One unary call of "assay.v1.Coordinator/GetJob". AssayError with the server's status and sentence, or
        UNAVAILABLE or DEADLINE_EXCEEDED of this side. `request` absent is an empty one."""
        until = None if deadline_s is None else time.monotonic() + deadline_s
        pauses = retry.pauses() if retry else iter(())
        while True:
            try:
                return self._call_once(method, request, until, attachments, trace_id)
            except AssayError as error:
                pause = next(pauses, None)
                if retry is None or pause is None or error.status not in retry.statuses:
                    raise
                if until is not None and time.monotonic() + pause >= until:
                    raise
                time.sleep(pause)

    def stream(
        self,
        method: str,
        request: Message | None = None,
        *,
        deadline_s: float | None = None,
        credit: int = 64,
        attachments: Sequence[Buffer] = (),
        trace_id: str | None = None,
    ) -> Stream:
        """Opens a stream; at most `credit` messages (1 to 1024) are under way at once."""
        until = None if deadline_s is None else time.monotonic() + deadline_s
        return Stream(self._open(method, request, until, attachments, min(max(credit, 1), wire.CREDIT_MAX), trace_id))

    def cancel_all(self) -> None:
        """Ends all calls of this channel with CANCELLED."""
        with self.lock:
            for call in list(self._calls.values()):
                call.fail(Status.CANCELLED, "cancelled")

    def close(self) -> None:
        """Ends all calls with CANCELLED and the connection. Twice is fine."""
        with self.lock:
            was_closed, self._closed = self._closed, True
        if not was_closed:
            self._waker.wake()
            self._thread.join()
            self._waker.close()

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call_once(
        self,
        method: str,
        request: Message | None,
        until: float | None,
        attachments: Sequence[Buffer],
        trace_id: str | None,
    ) -> Reply:
        call = self._open(method, request, until, attachments, 0, trace_id)
        try:
            with self.lock:
                while not call.ended:
                    left = call.time_left()
                    if left == 0.0:
                        call.fail(Status.DEADLINE_EXCEEDED, f"no answer from {self.endpoint} before the deadline")
                        break
                    call.changed.wait(left)
                if call.error:
                    raise call.error
                incoming = call.incoming.popleft()
        finally:
            self.leave(call)
        return Reply(wire.read_payload(call.method.reply, incoming.payload), incoming.attachments)

    def _open(
        self,
        name: str,
        request: Message | None,
        until: float | None,
        attachments: Sequence[Buffer],
        credit: int,
        trace_id: str | None,
    ) -> _Call:
        try:
            method = self.schemas.method(name)
        except KeyError:
            raise AssayError(Status.UNIMPLEMENTED, f"the schemas have no method {name}") from None
        message = method.request() if request is None else request
        if message.DESCRIPTOR.full_name != method.request.DESCRIPTOR.full_name:
            raise TypeError(
                f"{name} takes a {method.request.DESCRIPTOR.full_name}, found a {message.DESCRIPTOR.full_name}"
            )
        if method.is_stream != (credit > 0):
            raise TypeError(f"{name} is {'a stream: use stream()' if method.is_stream else 'unary: use call()'}")
        contents = wire.pack_contents(message, attachments)
        with self.lock:
            if self._closed:
                raise AssayError(Status.CANCELLED, f"{name}: the channel is closed")
            self._last_id += 1
            call = _Call(self, self._last_id, method, until, trace_id)
            call.request = contents
            call.granted = call.credit = credit
            self._calls[call.id] = call
            self.post("request", call)
        return call

    def post(self, what: str, call: _Call) -> None:
        """Locked: asks the channel's thread to send."""
        self._posts.append((what, call))
        self._waker.wake()

    def leave(self, call: _Call) -> None:
        """The caller is done with a call; what the server may still be working on is cancelled."""
        with self.lock:
            if self._calls.pop(call.id, None) is None:
                return
            call.end(None)
            if not self._closed and call.sent:
                self.post("cancel", call)

    # --- the channel's thread ---

    def _run(self) -> None:
        poller = zmq.Poller()
        for source in (self._socket, self._monitor, self._waker.fd):
            poller.register(source, zmq.POLLIN)
        while True:
            with self.lock:
                if self._closed:
                    break
                timeout = min(self._ping_at, time.monotonic() + 60) - time.monotonic()
            ready = dict(poller.poll(max(timeout * 1000, 0)))
            if self._waker.fd in ready:
                self._waker.drain()
            with self.lock:
                self._receive()
                if self._monitor in ready:
                    self._on_monitor()
                self._tick()
                self._flush()
        self._shut_down()

    def _shut_down(self) -> None:
        with self.lock:
            for call in self._calls.values():
                call.fail(Status.CANCELLED, "the channel was closed")
                if call.sent:
                    self._send([wire.pack_header(wire.CANCEL, call.id)])
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close()
        self._context.term()

    def _send(self, frames: Sequence[Buffer]) -> bool:
        """False: the pipe is full, or nobody is connected."""
        try:
            self._socket.send_multipart(
                frames, zmq.DONTWAIT, copy=sum(memoryview(frame).nbytes for frame in frames) < COPIED_BYTES_MAX
            )
        except zmq.Again:
            return False
        return True

    def _receive(self) -> None:
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            header = wire.read_header(frames[0].bytes) if len(frames) <= wire.PARTS_MAX else None
            if header is None:
                continue
            self._heard = time.monotonic()
            if header.kind == wire.PONG:
                self._ready = True
                self._instance = header.instance
                self._fail_sent("was restarted or lost the connection", other_instance_only=True)
            elif header.kind in (wire.REPLY, wire.STREAM, wire.END):
                call = self._calls.get(header.call_id)
                if call and not call.ended:
                    self._on_answer(call, header, frames[1:])

    def _on_answer(self, call: _Call, header: Message, parts: Sequence[zmq.Frame]) -> None:
        try:
            incoming = wire.read_parts(header, parts)
        except AssayError as error:
            call.fail(Status.INTERNAL, f"answer: {error.sentence}")
            return
        if header.status != 0:
            call.sent = False  # nothing is left to cancel
            status = Status.of(header.status)
            self._ready = self._ready and status is not Status.UNAVAILABLE  # it is going down: ask before more is sent
            call.end(
                AssayError(status, header.sentence or f"{call.method.name} answered {status.name} without a reason")
            )
        elif (header.kind == wire.REPLY) == (call.granted > 0):
            call.fail(Status.UNIMPLEMENTED, f"the server takes it for {'unary' if call.granted else 'a stream'}")
        elif header.kind == wire.STREAM and call.credit == 0:
            call.fail(Status.INTERNAL, "the server sent more than was granted")
        elif header.kind == wire.STREAM:
            call.credit -= 1
            call.incoming.append(incoming)
            call.changed.notify_all()
        else:
            call.sent = False
            if header.kind == wire.REPLY:
                call.incoming.append(incoming)
            call.end(None)

    def _on_monitor(self) -> None:
        lost = refused = False
        while self._monitor.poll(0):
            event = parse_monitor_message(self._monitor.recv_multipart())["event"]
            refused |= event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
            lost |= event == zmq.EVENT_DISCONNECTED
        if lost:
            self._receive()  # what had arrived before
            self._ready = False
            self._ping_at = time.monotonic()
            self._fail_sent("closed the connection")
        if refused:
            for call in self._calls.values():
                call.fail(
                    Status.UNAUTHENTICATED, f"{self.endpoint} refuses the connection: its key is not allowed there"
                )

    def _fail_sent(self, reason: str, other_instance_only: bool = False) -> None:
        for call in self._calls.values():
            if call.sent and not (other_instance_only and call.instance == self._instance):
                call.fail(Status.UNAVAILABLE, f"{self.endpoint} {reason}")

    def _tick(self) -> None:
        now = time.monotonic()
        if not self._calls:
            self._ping_at = float("inf")
            return
        if self._ping_at == float("inf"):  # the first call after a pause: is the server still the one that we know?
            self._active = now
            self._ready = self._ready and now - self._heard <= wire.FRESH_S
            self._ping_at = now if not self._ready else now + wire.PING_S
        if now < self._ping_at:
            return
        if now - max(self._heard, self._active) >= wire.SERVER_SILENT_S:
            self._ready = False
            self._fail_sent("is silent")
        if not self._ready:
            for call in self._calls.values():
                if not call.sent and now - call.started >= wire.SERVER_SILENT_S:
                    call.fail(Status.UNAVAILABLE, f"nobody answers at {self.endpoint}")
        self._send([wire.pack_header(wire.PING, 0)])
        self._ping_at = now + (wire.PING_S if self._ready else wire.PING_ANEW_S)

    def _flush(self) -> None:
        """Sends what is due. Requests wait for a PONG, all for room in the pipe."""
        kept: collections.deque[tuple[str, _Call]] = collections.deque()
        full = False
        while self._posts:
            what, call = self._posts.popleft()
            if what == "request" and (call.ended or call.sent):
                continue
            if full or (what == "request" and not self._ready):
                kept.append((what, call))
            elif not self._send_due(what, call):
                # No room often means no connection. The next one may lead to another process: ask before more is sent.
                full = True
                self._ready = False
                self._ping_at = time.monotonic() + wire.PING_ANEW_S
                kept.append((what, call))
        self._posts = kept

    def _send_due(self, what: str, call: _Call) -> bool:
        if what == "cancel":
            return self._send([wire.pack_header(wire.CANCEL, call.id)])
        if what == "credit":
            if call.ended or call.credit_due == 0:
                return True
            if not self._send([wire.pack_header(wire.CREDIT, call.id, credit=call.credit_due)]):
                return False
            call.credit += call.credit_due
            call.credit_due = 0
            return True
        contents, sizes = call.request
        fields: dict[str, Any] = {"method": call.method.name, "attachment_bytes": sizes}
        if call.deadline is not None:
            fields["time_left_ms"] = int(call.time_left() * 1000)
        if call.granted:
            fields["credit"] = call.granted
        if call.trace_id:
            fields["trace_id"] = call.trace_id
        if not self._send([wire.pack_header(wire.REQUEST, call.id, **fields), *contents]):
            return False
        call.request = None
        call.sent = True
        call.instance = self._instance
        return True
