"""A stack to disturb: its processes, its disk, its clock, another host. Each disturbance is a method that tells what it did. Standard library only."""
import errno
import json
import os
import shutil
import signal
import struct
import subprocess
import threading
import time

from chaos_links import Links
from hosts import Host, NoHost, free_port
from stack import BIN, Stack, assay, start_eval, wait_for

NS_PER_S = 1000000000
KINDS = ("coordinator", "quantizer", "evaluator", "inference")
STACK_ANEW_S = 40


def processes(data):
    """[(pid, kind, argv)] of all programs of ours that name the data directory."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                argv = file.read().decode(errors="replace").split("\0")[:-1]
        except OSError:
            continue
        program = os.path.basename(argv[0]) if argv else ""
        if program.startswith("assay") and any(arg == data or arg.startswith(data + "/") for arg in argv):
            found.append((int(name), program.removeprefix("assay-"), argv))
    return sorted(found)


class Clock:
    """Wall clocks of programs, by name, that can be set; off where there is no compiler or the programs are sanitized."""

    def __init__(self, path):
        self.dir = os.path.join(path, "clock")
        os.mkdir(self.dir)
        self.library = os.path.join(self.dir, "clock.so")
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "chaos_clock.c")
        cc = shutil.which("cc")
        self.why_not = "no C compiler" if not cc else ""
        if cc:
            subprocess.run([cc, "-shared", "-fPIC", "-O2", source, "-o", self.library, "-ldl"], check=True)
            probe = subprocess.run([os.path.join(BIN, "assay"), "--version"], env=self.environment(), capture_output=True, check=False)
            self.why_not = "" if probe.returncode == 0 else "the programs cannot be preloaded (sanitizers?)"
        for kind in KINDS:
            self.set(kind, 0)

    def environment(self):
        return {**os.environ, "LD_PRELOAD": self.library, "CHAOS_CLOCK": self.dir}

    def set(self, kind, seconds):
        with open(os.path.join(self.dir, f"assay-{kind}"), "r+b" if seconds else "wb") as file:
            file.write(struct.pack("<q", seconds * NS_PER_S))


class Disk:
    """A file system of its own for a directory, which can be full. Needs the right to mount."""

    def __init__(self, path, mebibytes):
        self.path = path
        os.makedirs(path, mode=0o700, exist_ok=True)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0700", "tmpfs", path],
                                 capture_output=True, text=True, check=False)
        self.why_not = "" if mounted.returncode == 0 else mounted.stderr.strip()
        self.filler = os.path.join(path, "filler")
        self.is_full = False  # the filler's name is gone before its pages are
        self.emptying = threading.Lock()

    def fill(self):
        self.is_full = True
        with open(self.filler, "ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def make_room(self):
        with self.emptying:
            if os.path.exists(self.filler):
                os.unlink(self.filler)
            self.is_full = False

    def close(self):
        if not self.why_not:
            subprocess.run(["umount", "-l", self.path], capture_output=True, check=False)


class Evaluator:
    """One more evaluator, started by hand."""

    def __init__(self, data, name, environment):
        self.command = [os.path.join(BIN, "assay-evaluator"), "--data", data, "--store", os.path.join(data, name)]
        self.environment = environment
        self.log = open(os.path.join(data, f"{name}.log"), "ab")
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=self.environment)

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGINT)  # it is no leaving: all end
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.log.close()


class FarWorker:
    """A worker on another host, let in by its key; started again whenever it ends. Its way to the coordinator is the link "far"."""

    def __init__(self, data, links, precision):
        self.data, self.precision = data, precision
        self.links, self.ending, self.starts = links, threading.Event(), 0
        self.host = Host(True)
        self.host.__enter__()
        ports = [free_port(self.host.address) for _ in range(2)]
        self.public = f"tcp://{self.host.address}:{ports[0]}"
        self.way = f"tcp://{self.host.address}:{ports[1]}"
        self.ports, self.process = ports, None
        self.keeper = threading.Thread(target=self._keep, name="far worker", daemon=True)

    def start(self):
        """When the stack is ready."""
        self.links.add_far((self.host.address, self.ports[1]), (self.host.address, self.ports[0]))
        made = json.loads(assay("keygen", "--role", "worker", "--name", "far", "-o", os.path.join(self.data, "far-keys"), "--json"))
        shutil.copy(made["publicFile"], os.path.join(self.data, "keys", "allowed"))
        self.command = [os.path.join(BIN, "assay-inference"), "--precision", self.precision, "--coordinator", self.way,
                        "--server-public-key", os.path.join(self.data, "keys", "server.pub"), "--key", made["secretFile"],
                        "--data", os.path.join(self.data, "far")]
        self.keeper.start()

    def _keep(self):
        with open(os.path.join(self.data, "logs", "far.log"), "ab") as log:
            while not self.ending.is_set():
                self.process = self.host.start(*self.command, log=log)
                while self.process.poll() is None and not self.ending.wait(0.1):
                    pass
                if self.process.poll() is not None:
                    self.ending.wait(0.5)
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def close(self):
        self.ending.set()
        if self.keeper.is_alive():
            self.keeper.join()
        self.host.__exit__()


class Site:
    """What a plan's `site` says, under `path`; `tell` takes each sentence about what happens."""

    def __init__(self, path, plan, tell):
        self.path, self.plan, self.tell = path, plan["site"], tell
        self.data, self.out = os.path.join(path, "data"), os.path.join(path, "out")
        os.makedirs(os.path.join(self.data, "run"), mode=0o700)
        os.chmod(self.data, 0o700)
        self.clock = Clock(path) if self.plan["clock"] else None
        self.environment = self.clock.environment() if self.clock and not self.clock.why_not else None
        self.disk = None
        self.links = None
        if self.plan["links"] or self.plan["far"]:
            self.links = Links(os.path.join(self.data, "run") if self.plan["links"] else None, plan["name"])
        self.far, self.no_far = None, "none is planned"
        self.stack, self.client, self.extras = None, None, []
        self.job, self.later = [], []
        self.clients = 0
        self.may_lack = False  # records that the finished job needs no more

    # --- beginning and end ---

    def __enter__(self):
        if self.plan["disk"]:
            place = self.data if self.plan["disk"] == "data" else os.path.join(self.data, "evaluator")
            self.disk = Disk(place, 256)
            os.makedirs(os.path.join(self.data, "run"), mode=0o700, exist_ok=True)
        if self.plan["far"]:
            try:
                self.far = FarWorker(self.data, self.links, self.plan["far"])
            except NoHost as error:
                self.no_far = str(error)
        self._start_stack()
        wait_for(self.stack.is_ready, 40, "the stack is ready")
        if self.links:
            self.links.__enter__()
        if self.far:
            self.far.start()
        if self.plan["links"]:
            wait_for(lambda: all(self.links.of(kind) for kind in ("coordinator", "evaluator", "quantizer")), 20, "the links stand")
        return self

    def _start_stack(self):
        before = dict(os.environ)
        os.environ.update(self.environment or {})
        try:
            far = ["--public", self.far.public, "--external", self.far.precision] if self.far else []
            self.stack = Stack(self.data, "--evaluators", str(self.plan["evaluators"]), *far)
        finally:
            os.environ.clear()
            os.environ.update(before)

    def _accepted(self):
        """Whether every client's job has begun; one that has left already has told why."""
        return self.client.poll() is not None or self._jobs("running") >= self.clients

    def _jobs(self, state):
        """How many jobs have come to that state."""
        with open(os.path.join(self.data, "logs", "coordinator.log"), encoding="utf-8", errors="replace") as file:
            return len({line.split("job=")[1].split()[0] for line in file if f" job {state} job=" in line})

    def __exit__(self, *_):
        for timer in self.later:
            timer.join()
        for pid, _, _ in processes(self.data):
            signal_to(pid, signal.SIGCONT)
        if self.far:
            self.far.host.cable(True)
        if self.links:
            self.links.__exit__()
        if self.client and self.client.poll() is None:
            self.client.kill()
        for extra in self.extras:
            extra.close()
        if self.far:
            self.far.close()
        self.stack.__exit__()

    def close(self):
        """When nothing runs any more. What lies on a disk of its own is gone then, but for the logs."""
        if self.disk and not self.disk.why_not:
            shutil.copytree(os.path.join(self.data, "logs"), os.path.join(self.path, "logs"), dirs_exist_ok=True)
            shutil.copy(os.path.join(self.data, "up.log"), self.path)
        if self.disk:
            self.disk.close()

    def start_job(self, job):
        self.job = job
        self.client = start_eval(self.data, f"{self.out}-{self.clients}", *job)
        self.clients += 1

    def out_dir(self):
        return f"{self.out}-{self.clients - 1}"

    def after(self, seconds, function):
        timer = threading.Timer(seconds, function)
        timer.start()
        self.later.append(timer)

    # --- disturbances ---

    def victims(self, kind, which):
        """The processes of a kind, as `which` says: a number picks one, "all" means all."""
        found = [(pid, argv) for pid, found_kind, argv in processes(self.data) if found_kind == kind]
        return found if which == "all" or not found else [found[which % len(found)]]

    def disturb(self, event):
        return getattr(self, event["what"])(**{key: value for key, value in event.items() if key not in ("at", "what")})

    def _leave_links(self, kind):
        """The coordinator's name is needed by its successor; the others have their pid in theirs."""
        if self.links and kind == "coordinator":
            self.links.leave(kind)

    def _come_back(self, kind):
        if self.links:
            self.links.come_back(kind)

    def kill(self, kind, which, signal_name):
        number = getattr(signal, signal_name)
        self._leave_links(kind)
        victims = self.victims(kind, which)
        hit = [pid for pid, _ in victims if signal_to(pid, number)]
        if kind == "coordinator":
            wait_for(lambda: not any(alive(pid) for pid in hit), 20, "the coordinator is gone")
        self._come_back(kind)
        return f"{signal_name} to {kind} {hit}"

    def freeze(self, kind, which, seconds):
        hit = [pid for pid, _ in self.victims(kind, which) if signal_to(pid, signal.SIGSTOP)]
        self.after(seconds, lambda: [signal_to(pid, signal.SIGCONT) for pid in hit])
        return f"{kind} {hit} stand still for {seconds} s"

    def power(self):
        """All processes of the stack at once, and then the stack anew, as an init system would."""
        self._leave_links("coordinator")
        hit = [pid for pid, _, _ in processes(self.data) if pid != self.client.pid and signal_to(pid, signal.SIGKILL)]
        self._stack_anew()
        for extra in self.extras:
            if extra.process.pid in hit:
                extra.process.wait()
                extra.start()
        return f"SIGKILL to all of the stack {hit}, and it is started anew"

    def supervisor(self):
        """Only `assay up`: its children end by themselves."""
        self._leave_links("coordinator")
        self.stack.process.kill()
        pid = self.stack.process.pid
        self._stack_anew()
        return f"SIGKILL to assay up ({pid}), and the stack is started anew"

    def _stack_anew(self):
        self.stack.process.wait()
        self.stack.log.close()
        deadline = time.monotonic() + STACK_ANEW_S
        self._start_stack()
        while time.monotonic() < deadline:
            if self.stack.process.poll() is not None:
                self.stack.log.close()
                time.sleep(0.5)
                self._start_stack()
            elif self.stack.is_ready():
                break
            time.sleep(0.1)
        self._come_back("coordinator")

    def leave(self):
        """The user's command is gone; the job is not. The user asks again; on a full disk no job would be accepted."""
        pid = self.client.pid
        self.client.kill()
        self.client.communicate()
        wait_for(lambda: not (self.disk and self.disk.is_full), 20, "there is room")
        self.start_job(self.job)
        return f"SIGKILL to assay eval ({pid}), and it is started again"

    def join(self):
        self.extras.append(Evaluator(self.data, f"joined-{len(self.extras)}", self.environment))
        return f"another evaluator joins ({self.extras[-1].process.pid})"

    def unjoin(self, signal_name):
        for extra in self.extras:
            if extra.process.poll() is None:
                extra.process.send_signal(getattr(signal, signal_name))
                self.may_lack |= signal_name == "SIGKILL" and self._jobs("completed") >= self.clients
                return f"{signal_name} to the evaluator that joined ({extra.process.pid})"
        return "no evaluator has joined"

    def cut(self, kind, seconds):
        return f"the link to {self.links.cut(kind, seconds)} {kind} is cut for {seconds} s"

    def stall(self, kind, seconds):
        count = self.links.change(kind, stalled=True)
        self.after(seconds, lambda: self.links.change(kind, stalled=False))
        return f"nothing passes to or from {count} {kind} for {seconds} s"

    def delay(self, kind, milliseconds):
        return f"{self.links.change(kind, delay_s=milliseconds / 1000)} {kind} are {milliseconds} ms away each way from now on"

    def twice(self, kind, share):
        return f"{share:.0%} of messages to and from {self.links.change(kind, twice=share)} {kind} come twice from now on"

    def garble(self, share, seconds):
        if not self.far:
            return f"no bytes to spoil: {self.no_far}"
        self.links.change("far", garbled=share)
        self.after(seconds, lambda: self.links.change("far", garbled=0.0))
        return f"{share:.0%} of what passes between the hosts is spoiled for {seconds} s"

    def cable(self, seconds):
        if not self.far:
            return f"no cable to pull: {self.no_far}"
        self.far.host.cable(False)
        self.after(seconds, lambda: self.far.host.cable(True))
        return f"the cable between the hosts is out for {seconds} s"

    def prune(self):
        """What running jobs need stays; in a job under disturbance the command itself may find nobody."""
        self.may_lack = True
        return f"assay cache prune --all ends with {assay('cache', 'prune', '--all', '--data', self.data, code=None).returncode}"

    def strange(self, kind, seed):
        return f"{self.links.strange(kind, seed)} {kind} get bytes that nobody understands"

    def full(self, seconds):
        if not self.disk or self.disk.why_not:
            return f"no disk to fill: {self.disk.why_not if self.disk else 'none'}"
        wait_for(self._accepted, 20, "the job is accepted")
        self.disk.fill()
        self.after(seconds, self.disk.make_room)
        return f"the disk of {os.path.relpath(self.disk.path, self.path)} is full for {seconds} s"

    def jump(self, kind, seconds):
        if not self.environment:
            return f"no clock to set: {self.clock.why_not}"
        for one in KINDS if kind == "all" else (kind,):
            self.clock.set(one, seconds)
        return f"the clock of {kind} jumps by {seconds:+} s"

    # --- afterwards ---

    def records(self):
        """Records in all stores; None while an evaluator does not answer."""
        process = assay("cache", "stat", "--data", self.data, "--json", code=None)
        if process.returncode != 0:
            return None
        return sum(share["records"] for share in json.loads(process.stdout)["evaluators"])

    def events(self):
        """What the supervisor said."""
        with open(os.path.join(self.data, "up.log"), encoding="utf-8", errors="replace") as file:
            return file.readlines()

    def stacks(self):
        """Where each thread of each process stands, for whoever looks into a hang."""
        for pid, kind, _ in processes(self.data):
            with open(os.path.join(self.path, f"threads-{kind}-{pid}.txt"), "wb") as file:
                if shutil.which("gdb"):
                    subprocess.run(["gdb", "-batch", "-p", str(pid), "-ex", "thread apply all bt"], stdin=subprocess.DEVNULL,
                                   stdout=file, stderr=subprocess.DEVNULL, timeout=60, check=False)


def signal_to(pid, number):
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
