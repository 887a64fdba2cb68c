"""Keeps a service registered with its coordinator: registers, sends heartbeats, registers again when it is
forgotten."""

from __future__ import annotations

import logging
import os
import random
import resource
import socket
import threading
from typing import Any, Callable

from google.protobuf.message import Message

from ..channel import Channel
from ..errors import AssayError, Status
from ..schemas import pb

log = logging.getLogger("assay.worker")

CALL_S = 5.0
BACKOFF_S = 0.1
BACKOFF_MAX_S = 5.0
HEARTBEAT_S = 1.0


def jittered(seconds: float) -> float:
    """20 % more or less, so that a fleet does not come at once."""
    return seconds * random.uniform(0.8, 1.2)


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Member:
    """`counters` fills in what the service counts, beside memory and CPU time. The channel stays the caller's."""

    def __init__(self, channel: Channel, registration: Message, counters: Callable[[], dict[str, int]]):
        self._channel = channel
        self._counters = counters
        self._changed = threading.Condition()
        self._id = 0
        self._stopping = False
        self._registration = pb.RegisterRequest()
        self._registration.CopyFrom(registration)
        self._registration.pid = os.getpid()
        self._registration.host = socket.gethostname()
        self._thread = threading.Thread(target=self._run, name="assay-member", daemon=True)
        self._thread.start()

    def wait_for_id(self, seconds: float) -> int:
        """0: not registered within that time."""
        with self._changed:
            self._changed.wait_for(lambda: self._id or self._stopping, seconds)
            return self._id

    def forgotten(self, service_id: int) -> None:
        """The coordinator does not know this id: registers again."""
        with self._changed:
            if self._id == service_id:
                self._id = 0
                self._changed.notify_all()

    def stop(self) -> None:
        """Falls silent. The channel's calls are to be cancelled first, else a call under way is waited for."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def _pause(self, seconds: float, service_id: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._id != service_id, seconds)

    def _call(self, method: str, request: Message) -> Any:
        return self._channel.call(f"assay.v1.Coordinator/{method}", request, deadline_s=CALL_S).message

    def _run(self) -> None:
        backoff, period = BACKOFF_S, HEARTBEAT_S
        while not self._stopping:
            service_id = self._id
            if service_id == 0:
                try:
                    reply = self._call("RegisterService", self._registration)
                except AssayError as error:
                    if backoff == BACKOFF_S:
                        log.warning(
                            'not registered, trying on status=%s reason="%s"', error.status.name, error.sentence
                        )
                    self._pause(jittered(backoff), 0)
                    backoff = min(2 * backoff, BACKOFF_MAX_S)
                    continue
                backoff = BACKOFF_S
                period = min(max(reply.heartbeat_ms / 1000 or HEARTBEAT_S, 0.01), 60.0)
                with self._changed:
                    self._id = reply.service_id
                    self._changed.notify_all()
            elif self._heartbeat(service_id):
                self._pause(period, service_id)
            else:
                self.forgotten(service_id)
                self._pause(jittered(BACKOFF_S), 0)

    def _heartbeat(self, service_id: int) -> bool:
        """False when the coordinator forgot the id, or is another process by now."""
        cpu = resource.getrusage(resource.RUSAGE_SELF)
        counters = pb.ServiceCounters(
            rss_bytes=_resident_bytes(), cpu_ms=int((cpu.ru_utime + cpu.ru_stime) * 1000), **self._counters()
        )
        try:
            reply = self._call("Heartbeat", pb.HeartbeatRequest(service_id=service_id, counters=counters))
        except AssayError as error:
            return error.status is not Status.UNAVAILABLE  # the next heartbeat may do better
        return not reply.unknown
