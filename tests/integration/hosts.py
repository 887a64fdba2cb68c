"""Another host for integration tests: a network namespace, which only root can make. Standard library only."""
import os
import shutil
import socket
import subprocess


def free_port(address):
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


class NoHost(Exception):
    """There is no other host on this machine, with the reason."""


class Host:
    """The other host: where its commands run, and the address at which it finds the stack. Without `separate` it is this one."""

    def __init__(self, separate):
        self.separate = separate
        self.address = "127.0.0.1"
        self.prefix = []
        self.name = f"assay-{os.getpid()}"

    def ip(self, *args, must=True):
        done = subprocess.run(["ip", *args], capture_output=True, text=True, check=False)
        if must and done.returncode != 0:
            raise OSError(f"ip {' '.join(args)}: {done.stderr.strip()}")

    def __enter__(self):
        if not self.separate:
            return self
        if not shutil.which("ip"):
            raise NoHost("the program ip is missing")
        here, there = f"as{os.getpid() % 100000}a", f"as{os.getpid() % 100000}b"
        net = 1 + os.getpid() % 250
        self.address = f"10.231.{net}.1"
        try:
            self.ip("netns", "add", self.name)
            self.ip("link", "add", here, "type", "veth", "peer", "name", there)
            self.link = here
            self.ip("link", "set", there, "netns", self.name)
            self.ip("addr", "add", f"{self.address}/30", "dev", here)
            self.ip("link", "set", here, "up")
            self.ip("-n", self.name, "addr", "add", f"10.231.{net}.2/30", "dev", there)
            self.ip("-n", self.name, "link", "set", there, "up")
            self.ip("-n", self.name, "link", "set", "lo", "up")
        except OSError as error:
            self.__exit__()
            raise NoHost(f"no network namespace is to be had: {error}") from error
        self.prefix = ["ip", "netns", "exec", self.name]
        return self

    def __exit__(self, *_):
        if self.separate:
            self.ip("netns", "del", self.name, must=False)

    def cable(self, is_in):
        """Pulls the cable between the hosts, or puts it in again."""
        self.ip("link", "set", self.link, "up" if is_in else "down")

    def start(self, *command, log=subprocess.PIPE):
        return subprocess.Popen([*self.prefix, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, text=True)

    def run(self, *command, timeout=60):
        return subprocess.run([*self.prefix, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=timeout, check=False)
