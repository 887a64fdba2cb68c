"""Links that go wrong: a proxy takes the place of a service's ipc socket and passes bytes on, late, not at all, or twice. Standard library only.

The service does not notice: its socket file is renamed, the proxy listens under the old name. Bytes are delayed and connections cut as they
are; for sending something twice the stream is read as ZMTP 3.0 (RFC 23), whole messages are kept, and a message is sent again under the id
of its call, as a network that delivers at least once may do."""
import asyncio
import os
import random
import socket
import stat
import threading

READ_BYTES = 1 << 18
GREETING_BYTES = 64
MORE, LONG, COMMAND = 1, 2, 4
REQUEST, REPLY, CANCEL, PING, PONG = 1, 2, 5, 7, 8  # FrameKind of proto/rpc.proto
TWICE = {REQUEST, REPLY, CANCEL, PING, PONG}        # messages of streams have their place: they are numbered by counting
ECHO_S = 0.4


def header_fields(data):
    """{number: value} of the integers of a proto2 message (the last one of each); None when it is not one."""
    fields, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            shift += 7
            at += 1
            if not data[at - 1] & 128:
                return value

    try:
        while at < len(data):
            tag = varint()
            if tag & 7 == 0:
                fields[tag >> 3] = varint()
            elif tag & 7 == 1:
                at += 8
            elif tag & 7 == 2:
                at += varint()
            else:
                return None
    except IndexError:
        return None
    return fields


class Messages:
    """Cuts one direction of a connection into what goes out at once: (bytes, first frame of a message or None)."""

    def __init__(self):
        self.buffer = bytearray()
        self.greeting_left = GREETING_BYTES  # it is exchanged in steps: no byte of it may wait for the next
        self.pieces, self.first = [], None

    def feed(self, data):
        out = []
        if self.greeting_left:
            out.append((data[:self.greeting_left], None))
            self.greeting_left -= len(out[0][0])
        self.buffer += data[len(out[0][0]):] if out else data
        while (size := self._frame_bytes()) and len(self.buffer) >= size[0] + size[1]:
            flags = self.buffer[0]
            frame = self._take(size[0] + size[1])
            if flags & COMMAND:
                out.append((frame, None))
                continue
            self.first = frame[size[0]:] if self.first is None else self.first
            self.pieces.append(frame)
            if not flags & MORE:
                out.append((b"".join(self.pieces), self.first))
                self.pieces, self.first = [], None
        return out

    def _frame_bytes(self):
        """(head, body) of the frame that begins the buffer; None when its head is not whole."""
        if not self.buffer or len(self.buffer) < (9 if self.buffer[0] & LONG else 2):
            return None
        return (9, int.from_bytes(self.buffer[1:9], "big")) if self.buffer[0] & LONG else (2, self.buffer[1])

    def _take(self, count):
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken


class Way:
    """One direction of one connection."""

    def __init__(self, link, reader, writer):
        self.link, self.reader, self.writer = link, reader, writer
        self.messages = Messages()
        self.queue = asyncio.Queue()
        self.tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._write())]

    async def _read(self):
        try:
            while data := await self.reader.read(READ_BYTES):
                for piece, first in self.messages.feed(data):
                    if self.link.garbled and self.link.random.random() < self.link.garbled:
                        piece = self._garble(piece)
                    now = asyncio.get_running_loop().time()
                    self.queue.put_nowait((now + self.link.delay_s, piece))
                    if first is not None and self.link.twice and self.link.random.random() < self.link.twice:
                        self._again(piece, first)
        except OSError:
            pass
        self.queue.put_nowait((0, None))

    def _garble(self, piece):
        at = self.link.random.randrange(len(piece))
        self.link.spoiled += 1
        return piece[:at] + bytes([piece[at] ^ self.link.random.randint(1, 255)]) + piece[at + 1:]

    def _again(self, piece, first):
        fields = header_fields(first)
        if not fields or fields.get(2) not in TWICE or 10 in fields:
            return
        self.link.repeated += 1
        later = self.link.random.random() * ECHO_S
        asyncio.get_running_loop().call_later(later, self.queue.put_nowait, (0, piece))

    async def _write(self):
        loop = asyncio.get_running_loop()
        try:
            while True:
                due, piece = await self.queue.get()
                while self.link.stalled or due > loop.time():
                    await asyncio.sleep(0.02 if self.link.stalled else due - loop.time())
                if piece is None:
                    break
                self.writer.write(piece)
                await self.writer.drain()
        except OSError:
            pass
        self.writer.close()

    def close(self):
        for task in self.tasks:
            task.cancel()
        self.writer.transport.abort()


class Link:
    """What stands before one ipc socket. All but `delay_s`, `twice`, `garbled` and `stalled`, which may be set at any time, is the loop's."""

    def __init__(self, path, seed):
        self.path, self.real = path, path + ".real"
        self.random = random.Random(seed)
        self.delay_s, self.twice, self.garbled, self.stalled = 0.0, 0.0, 0.0, False
        self.repeated = self.spoiled = 0
        self.server, self.inode, self.ways = None, 0, []
        self.opening = False

    async def open(self):
        os.rename(self.path, self.real)
        await self._listen()

    async def _listen(self):
        self.server = await asyncio.start_unix_server(self._accept, self.path, limit=4 * READ_BYTES)
        self.inode = os.stat(self.path).st_ino

    async def _dial(self):
        return await asyncio.open_unix_connection(self.real, limit=4 * READ_BYTES)

    async def _accept(self, reader, writer):
        try:
            there, back = await self._dial()
        except OSError:
            writer.transport.abort()
            self.orphaned()
            return
        self.ways = [way for way in self.ways if not all(task.done() for task in way.tasks)]
        self.ways += [Way(self, reader, back), Way(self, there, writer)]

    def orphaned(self):
        """The process is gone; the next one must find its name free."""
        self.drop()

    async def cut(self, seconds):
        """Closes all connections and refuses new ones for a while."""
        self.shut()
        self.server = None
        await asyncio.sleep(seconds)
        await self._reopen()

    async def _reopen(self):
        if self.is_here() and os.path.exists(self.real):
            self.opening = True  # the name is ours although it is another file for a moment
            os.unlink(self.path)
            await self._listen()
            self.opening = False

    def shut(self):
        if self.server:
            self.server.close()
        for way in self.ways:
            way.close()
        self.ways = []

    def drop(self):
        """Leaves for good, and takes the socket file along: the next process of that name binds it anew."""
        self.shut()
        if self.is_here():
            os.unlink(self.path)

    def restore(self):
        """Leaves, and gives the service its name back."""
        self.drop()
        if os.path.exists(self.real) and not os.path.exists(self.path):
            os.rename(self.real, self.path)

    def is_here(self):
        try:
            return self.opening or os.stat(self.path).st_ino == self.inode
        except FileNotFoundError:
            return False


class FarLink(Link):
    """The same between two tcp ports. Bytes may be spoiled there, as CURVE authenticates them."""

    def __init__(self, here, there, seed):
        super().__init__("", seed)
        self.here, self.there = here, there

    async def open(self):
        await self._listen()

    async def _listen(self):
        self.server = await asyncio.start_server(self._accept, *self.here, limit=4 * READ_BYTES)

    async def _dial(self):
        return await asyncio.open_connection(*self.there, limit=4 * READ_BYTES)

    async def _reopen(self):
        await self._listen()

    def orphaned(self):
        """The next process has the same port."""

    def drop(self):
        self.shut()

    def restore(self):
        self.shut()

    def is_here(self):
        return True


class Links:
    """The links of a stack: takes over each service's socket in `run`, unless it is None, as it appears."""

    def __init__(self, run, seed):
        self.run, self.seed = run, seed
        self.links = {}
        self.paused = set()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._main, name="links", daemon=True)

    def _main(self):
        asyncio.set_event_loop(self.loop)
        self.loop.create_task(self._look())
        self.loop.run_forever()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    async def _end(self):
        for link in self.links.values():
            link.restore()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _look(self):
        while True:
            for name in os.listdir(self.run) if self.run else ():
                kind = name.split("-")[0].removesuffix(".sock")
                if name.endswith(".sock") and kind in ("coordinator", "evaluator", "quantizer") and kind not in self.paused:
                    await self._take_over(name)
            await asyncio.sleep(0.1)

    async def _take_over(self, name):
        path = os.path.join(self.run, name)
        link = self.links.get(name)
        try:
            if not stat.S_ISSOCK(os.stat(path).st_mode) or (link and link.is_here()) or not listens(path):
                return
            link = Link(path, f"{self.seed}:{name}")
            await link.open()
            self.links[name] = link
        except OSError:
            pass  # it went away while we looked

    def add_far(self, here, there):
        """A tcp port, (host, port), that leads to another one; it is of kind "far"."""
        link = FarLink(here, there, f"{self.seed}:far")
        asyncio.run_coroutine_threadsafe(link.open(), self.loop).result(10)
        self.links["far"] = link

    def of(self, kind):
        return [link for name, link in sorted(self.links.items()) if name.split("-")[0].removesuffix(".sock") == kind]

    def cut(self, kind, seconds):
        for link in self.of(kind):
            asyncio.run_coroutine_threadsafe(link.cut(seconds), self.loop)
        return len(self.of(kind))

    def leave(self, kind):
        """Before a process of the kind is ended: its successor must find its name free."""
        async def leave():
            self.paused.add(kind)
            for link in self.of(kind):
                link.drop()
            self.links = {name: link for name, link in self.links.items() if name.split("-")[0].removesuffix(".sock") != kind}
        asyncio.run_coroutine_threadsafe(leave(), self.loop).result(10)

    def come_back(self, kind):
        self.paused.discard(kind)

    def change(self, kind, **values):
        for link in self.of(kind):
            for name, value in values.items():
                setattr(link, name, value)
        return len(self.of(kind))

    def spoiled(self):
        return sum(link.spoiled for link in self.links.values())

    def repeated(self):
        return sum(link.repeated for link in self.links.values())

    def strange(self, kind, seed):
        """Bytes that nobody can understand, on a connection of their own, in several ways."""
        rng = random.Random(seed)
        greeting = bytes([255, 0, 0, 0, 0, 0, 0, 0, 1, 127, 3, 0]) + b"NULL".ljust(20, b"\0") + bytes(32)
        ready = bytes([4, 26]) + b"\5READY\13Socket-Type\0\0\0\6DEALER"
        texts = [rng.randbytes(rng.randint(1, 4000)), greeting + rng.randbytes(rng.randint(1, 4000)), greeting + ready,
                 greeting + ready + b"".join(bytes([0, n]) + rng.randbytes(n) for n in (rng.randint(0, 255) for _ in range(50))),
                 greeting + ready + bytes([LONG]) + (1 << 60).to_bytes(8, "big") + b"x" * 100]
        for link in self.of(kind):
            for text in texts:
                try:
                    with socket.socket(socket.AF_UNIX) as stranger:
                        stranger.settimeout(1)
                        stranger.connect(link.real)
                        stranger.sendall(text)
                except OSError:
                    pass  # cut off, as it should be
        return len(self.of(kind))


def listens(path):
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
