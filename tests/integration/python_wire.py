#!/usr/bin/env python3
"""The Python package by itself: its two sides of a connection against each other, hostile bytes, a server that falls silent, records that
are sent elsewhere."""

import contextlib
import os
import tempfile
import threading
import time

from python_side import need

need(("zmq", "google.protobuf"), "tools/install_deps.sh --checks installs them", must_in_ci=True)

import zmq  # noqa: E402

from zmq.utils import z85  # noqa: E402

from assay import AssayError, Channel, Key, Retry, Server, Status, pb, read_public_key, read_secret_key  # noqa: E402  (on the path since need())
from assay.worker.lease import Chunk, Lease, Variant  # noqa: E402
from assay.worker.narrow import is_measured, narrow  # noqa: E402
from assay.worker.putting import Putter, Record  # noqa: E402
from assay.worker.shards import Shard, ShardMap  # noqa: E402

checks = 0


def check(condition, what):
    global checks
    checks += 1
    print(f"{'ok' if condition else 'FAILED'}: {what}", flush=True)
    if not condition:
        raise SystemExit(1)


@contextlib.contextmanager
def fails(status, what):
    try:
        yield
    except AssayError as error:
        check(error.status is status and error.sentence, f"{what}: {error}")
        return
    check(False, f"{what} fails")


def put(request, context):
    return pb.PutRecordsReply(stored=sum(len(part) for part in context.attachments)), [b"back", *context.attachments]


def score(request, _):
    for number in range(200):
        yield pb.ScoreReply(chunks_done=number)
    raise AssayError(Status.DATA_LOSS, "that is all")


def wait(_, context):
    waits.append(context)
    context.wait(20)
    return pb.CancelJobReply()


waits = []
SERVICES = {
    "assay.v1.Records": {"Put": put},
    "assay.v1.Evaluator": {"Score": score},
    "assay.v1.Coordinator": {"CancelJob": wait, "GetJob": lambda request, _: request.nothing},
}


def check_calls(endpoint):
    with Channel(endpoint) as channel:
        reply = channel.call("assay.v1.Records/Put", pb.PutRecordsRequest(), attachments=[b"abc", bytes(5 << 20)])
        check(
            reply.message.stored == 3 + (5 << 20) and [len(part) for part in reply.attachments] == [4, 3, 5 << 20],
            "attachments go and come",
        )
        with (
            fails(Status.DATA_LOSS, "a stream's failure comes behind its messages"),
            channel.stream("assay.v1.Evaluator/Score", credit=3) as stream,
        ):
            seen = []
            for message in stream:
                seen.append(message.chunks_done)
        check(seen == list(range(200)), "all of them, in order, three at a time")
        with channel.stream("assay.v1.Evaluator/Score", credit=1) as stream:
            next(stream)
        started = time.monotonic()
        with fails(Status.DEADLINE_EXCEEDED, "a call that takes too long"):
            channel.call("assay.v1.Coordinator/CancelJob", deadline_s=0.3)
        check(time.monotonic() - started < 2 and waits[-1].wait(5), "ends in time on both sides")
        with fails(Status.INTERNAL, "a handler's mistake is its call's failure"):
            channel.call("assay.v1.Coordinator/GetJob")
        with fails(Status.UNIMPLEMENTED, "a method that nobody serves"):
            channel.call("assay.v1.Coordinator/ListJobs")
        with fails(Status.RESOURCE_EXHAUSTED, "too many attachments"):
            channel.call("assay.v1.Records/Put", attachments=[b""] * 63)
        threads = [
            threading.Thread(target=lambda: [channel.call("assay.v1.Health/Check") for _ in range(50)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        check(not any(thread.is_alive() for thread in threads), "calls of eight threads")
        cancelled = threading.Timer(0.3, channel.cancel_all)
        cancelled.start()
        with fails(Status.CANCELLED, "a call that is cancelled"):
            channel.call("assay.v1.Coordinator/CancelJob", deadline_s=20)
        check(waits[-1].wait(5), "is cancelled in the server, too")
    with fails(Status.CANCELLED, "a channel that is closed"):
        channel.call("assay.v1.Health/Check")


def check_hostile(endpoint):
    """Bytes that are no message are dropped or answered; the server goes on."""
    context = zmq.Context()
    raw = context.socket(zmq.DEALER)
    raw.setsockopt(zmq.LINGER, 0)
    raw.connect(endpoint)
    good = pb.Header(version=1, kind=pb.FRAME_KIND_REQUEST, call_id=7, method="assay.v1.Health/Check")
    for frames in (
        [b""],
        [b"\xff" * 40],
        [b"\x08"],
        [b"x" * 20000],
        [bytes(good.SerializeToString()[:-3])],
        [pb.Header(version=2, kind=pb.FRAME_KIND_PING, call_id=1).SerializeToString()],
        [pb.Header(version=1, kind=pb.FRAME_KIND_CREDIT, call_id=1).SerializeToString()],
        [good.SerializeToString()] + [b"p"] * 70,
    ):
        raw.send_multipart(frames)
    for frames, status in (
        ([b"\xff\xff"], Status.INTERNAL),
        ([], Status.INTERNAL),
        ([b"", b"attachment"], Status.INTERNAL),
    ):
        raw.send_multipart([good.SerializeToString(), *frames])
        check(raw.poll(5000), "a request with the wrong parts is answered")
        check(Status.of(pb.Header.FromString(raw.recv_multipart()[0]).status) is status, f"with {status.name}")
    raw.send_multipart([pb.Header(version=1, kind=pb.FRAME_KIND_PING, call_id=9).SerializeToString()])
    check(raw.poll(5000) and pb.Header.FromString(raw.recv_multipart()[0]).call_id == 9, "and the server is there")
    raw.close()
    context.term()


def check_servers_that_go(folder):
    endpoint = f"ipc://{folder}/goes.sock"
    server = Server(endpoint, SERVICES)
    with Channel(endpoint) as channel:
        channel.call("assay.v1.Health/Check")
        threading.Timer(0.3, server.close).start()
        with fails(Status.UNAVAILABLE, "a server that goes"):
            channel.call("assay.v1.Coordinator/CancelJob", deadline_s=20)
        started = []
        threading.Timer(1.0, lambda: started.append(Server(endpoint, SERVICES))).start()
        check(
            channel.call("assay.v1.Health/Check", deadline_s=20).message.status == pb.SERVING_STATUS_SERVING,
            "and comes back is waited for",
        )
        with fails(Status.UNAVAILABLE, "a second server on the same path"):
            Server(endpoint)
        started[0].close()
    context = zmq.Context()
    mute = context.socket(zmq.ROUTER)  # takes everything, says nothing
    mute.bind(f"ipc://{folder}/mute.sock")
    with Channel(f"ipc://{folder}/mute.sock") as channel, fails(Status.UNAVAILABLE, "a server that is silent"):
        channel.call("assay.v1.Health/Check", deadline_s=30, retry=Retry(attempts=1))
    mute.close(0)
    context.term()
    os.chmod(folder, 0o755)
    with fails(Status.PERMISSION_DENIED, "a socket in a directory that others may enter"):
        Server(f"ipc://{folder}/open.sock")
    os.chmod(folder, 0o700)


class Evaluator:
    """Stores what it owns by its map, as an evaluator does."""

    def __init__(self, folder, name):
        self.keys = []
        self.shard = Shard(name.encode() * 8, f"ipc://{folder}/{name}.sock", False)
        self.map = None
        self.server = Server(self.shard.endpoint, {"assay.v1.Records": {"Put": self.put}})

    def put(self, request, _):
        mine = [record.chunk_key for record in request.records if self.map.owner(record.chunk_key) == self.shard]
        self.keys += mine
        reply = pb.PutRecordsReply(
            stored=len(mine), moved=[i for i, r in enumerate(request.records) if r.chunk_key not in mine]
        )
        if request.epoch != self.map.epoch:
            shards = [pb.Shard(shard_id=s.shard_id, endpoint=s.endpoint, leaving=s.leaving) for s in self.map.shards]
            reply.shard_map.CopyFrom(pb.ShardMap(epoch=self.map.epoch, shards=shards))
        return reply


def check_shards(folder):
    first, second, third = (Evaluator(folder, name) for name in ("aa", "bb", "cc"))
    former = ShardMap(1, (first.shard, second.shard))
    now = ShardMap(2, (first.shard, second.shard, third.shard))
    records = [Record(os.urandom(32), 1, 1, bytes(4), pb.DTYPE_F32, tokens=1) for _ in range(100)]
    lease = Lease(
        service_id=1,
        lease_id=1,
        variant=Variant(bytes(32), "fp32", "", "fp32", "/"),
        evaluator=first.shard.endpoint,
        chunks=tuple(Chunk(record.key, memoryview(b""), 0, 1) for record in records),
        wants_f16=False,
        shard_map=former,
        first_of_job=b"",
        trace_id=None,
    )
    for evaluator in (first, second, third):
        evaluator.map = now
    putter = Putter("toy-1", None, threading.Event())
    stored = []
    putter.put_all(lease, records, stored.extend)
    owned = {evaluator.shard.endpoint: evaluator.keys for evaluator in (first, second, third)}
    check(
        len(stored) == 100
        and all(now.owner(key).endpoint == endpoint for endpoint, keys in owned.items() for key in keys),
        "records that moved are sent to their owners",
    )
    check(
        all(15 < len(keys) < 60 for keys in owned.values()),
        f"each has a share: {[len(keys) for keys in owned.values()]}",
    )
    first.server.close()
    for evaluator in (second, third):
        evaluator.map = ShardMap(3, (second.shard, third.shard))
    before = len(second.keys) + len(third.keys)
    stored = []
    putter.put_all(lease, records, stored.extend)
    check(
        len(stored) == 100 and len(second.keys) + len(third.keys) == before + 100,
        "the share of one that is gone goes to the others",
    )
    putter.close()
    second.server.close()
    third.server.close()


def new_key(role):
    public, secret = (z85.decode(half) for half in zmq.curve_keypair())
    return Key(public, role, secret)


def check_curve(folder):
    """Keys, as `assay keygen` writes them, between two processes of the package."""
    server_key, worker_key, stranger = new_key("admin"), new_key("worker"), new_key("worker")
    path = os.path.join(folder, "w.key")
    with open(path, "w", encoding="ascii") as file:
        file.write(f"# a worker\nrole worker\npublic {worker_key.public.hex()}\n\nsecret {worker_key.secret.hex()}\n")
    with fails(Status.PERMISSION_DENIED, "a secret that others may read"):
        read_secret_key(path)
    os.chmod(path, 0o600)
    check(
        read_secret_key(path) == worker_key and worker_key.secret.hex() not in repr(worker_key),
        "a secret key is read, not shown",
    )
    with fails(Status.INVALID_ARGUMENT, "a secret file in place of a public one"):
        read_public_key(path)
    allowed = {worker_key.public}
    with Server("tcp://127.0.0.1:*", SERVICES, key=server_key, allowed=allowed) as server:
        check(server.endpoint.endswith(f"#{server_key.public.hex()}"), "the endpoint has the server's key behind it")
        with Channel(server.endpoint, worker_key) as channel:
            reply = channel.call("assay.v1.Records/Put", pb.PutRecordsRequest(), attachments=[bytes(1 << 20)])
            check(reply.message.stored == 1 << 20, "a call over CURVE")
        with Channel(f"ipc://{folder}/nobody.sock,{server.endpoint}", worker_key) as channel:
            check(
                channel.call("assay.v1.Health/Check").message.status == pb.SERVING_STATUS_SERVING,
                "who has a key takes the endpoint with one",
            )
        with Channel(server.endpoint, stranger) as channel, fails(Status.UNAUTHENTICATED, "a key that is not allowed"):
            channel.call("assay.v1.Health/Check", deadline_s=10)
        with fails(Status.PERMISSION_DENIED, "no key where one is wanted"):
            Channel(server.endpoint)
        wrong = f"{server.endpoint.split('#')[0]}#{stranger.public.hex()}"
        with Channel(wrong, worker_key) as channel, fails(Status.UNAVAILABLE, "another server's key"):
            channel.call("assay.v1.Health/Check", deadline_s=10)
    for text in (
        "tcp://127.0.0.1:70000",
        "tcp://127.0.0.1:1#12",
        "udp://127.0.0.1:1",
        "ipc://",
        "tcp://127.0.0.1:1,ipc:///a,ipc:///b",
    ):
        with fails(Status.INVALID_ARGUMENT, f"the endpoint {text}"):
            Channel(text)
    with fails(Status.PERMISSION_DENIED, "another host without keys"):
        Channel("tcp://192.0.2.1:7421", worker_key)


def check_narrow():
    import array

    values = array.array(
        "f", [0.0, -0.0, 1.0, 65504.0, 65519.0, 2.0**-25, 2.0**-25 * 1.5, 1 + 2.0**-11, 1 + 3 * 2.0**-11]
    )
    halves = array.array("H", narrow(bytes(32), values.tobytes(), 9)).tolist()
    check(halves == [0, 0x8000, 0x3C00, 0x7BFF, 0x7BFF, 0, 1, 0x3C00, 0x3C02], "halves are the nearest, ties to even")
    for value in (65520.0, -1e9, float("nan"), float("inf")):
        with fails(Status.INVALID_ARGUMENT, f"{value} in half precision"):
            narrow(bytes(32), array.array("f", [1.0, value]).tobytes(), 2)
    key = b"\x11" + bytes(31)
    check(is_measured(b"\x10" + bytes(31), b"") and not is_measured(key, b""), "one chunk in 16 is measured")
    check(is_measured(key, key), "and the first of a job")


with tempfile.TemporaryDirectory(prefix="assay-") as scratch:
    with Server(f"ipc://{scratch}/one.sock", SERVICES) as served:
        check_calls(served.endpoint)
        check_hostile(served.endpoint)
    check_servers_that_go(scratch)
    check_shards(scratch)
    check_curve(scratch)
check_narrow()
print(f"{checks} checks held")
