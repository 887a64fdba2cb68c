#!/usr/bin/env python3
"""Workers and users of another host, over CURVE, with the commands of docs/OPERATIONS.md. Without an argument on the loopback; with
`netns` the other host is a network namespace, which only root can make: otherwise the test is skipped, with the reason."""
import json
import os
import shutil
import subprocess
import sys
import time

from hosts import Host, NoHost, free_port
from stack import BIN, Directory, Stack, assay, check, close, finish, result_of, run_eval, wait_for

CHUNKS = 2
SKIPPED = 77


class Remote:
    """The stack as the other host sees it."""

    def __init__(self, host, data, endpoint, keys):
        self.host, self.data, self.endpoint, self.keys = host, data, endpoint, keys
        self.server = os.path.join(data, "keys", "server.pub")

    def keygen(self, role, name, allow=True):
        out = self.host.run(os.path.join(BIN, "assay"), "keygen", "--role", role, "--name", name, "-o", self.keys, "--json")
        check(out.returncode == 0, f"keygen --role {role}: {out.stderr}")
        made = json.loads(out.stdout)
        check(os.stat(made["secretFile"]).st_mode & 0o777 == 0o600, "the secret file is its owner's alone")
        with open(made["secretFile"], encoding="ascii") as file:
            secret = next(line.split()[1] for line in file if line.startswith("secret "))
        check(secret not in out.stdout + out.stderr, "the secret is not printed")
        if allow:
            shutil.copy(made["publicFile"], os.path.join(self.data, "keys", "allowed"))
        return made["secretFile"], secret

    def revoke(self, name):
        os.unlink(os.path.join(self.data, "keys", "allowed", f"{name}.pub"))

    def worker(self, precision, key, scratch):
        return self.host.start(os.path.join(BIN, "assay-inference"), "--precision", precision, "--coordinator", self.endpoint,
                               "--server-public-key", self.server, "--key", key, "--data", scratch)

    def jobs(self, key, server=None):
        keys = ["--key", key, "--server-public-key", server or self.server] if key else []
        return self.host.run(os.path.join(BIN, "assay"), "jobs", "--coordinator", self.endpoint, "--json", *keys)


def stop(process):
    process.terminate()
    try:
        return process.communicate(timeout=20)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


def figures_of(report):
    metrics = result_of(report, "int8")["metrics"]
    return {**{f"kl {key}": metrics["kl_nats"][key] for key in ("mean", "median", "p99", "max", "n")},
            "perplexity": metrics["perplexity"]["value"], "same top-1": metrics["same_top1_percent"]["value"]}


def figures_equal(remote, scratch, local_data, key):
    with Stack(local_data):
        wanted = figures_of(run_eval(local_data, os.path.join(scratch, "local"), "--reference", "fp32", "--variants", "int8",
                                     "--chunks", str(CHUNKS)))
    workers = [remote.worker(precision, key, os.path.join(scratch, precision)) for precision in ("fp32", "int8")]
    report = run_eval(remote.data, os.path.join(scratch, "curve"), "--reference", "fp32", "--variants", "int8", "--chunks",
                      str(CHUNKS))
    found = figures_of(report)
    for name, value in wanted.items():
        check(found[name] == value, f"{name} by workers over CURVE is {found[name]!r}, by local ones {value!r}: the same bits")
    check(close(found["perplexity"], wanted["perplexity"], 0), "and so is the perplexity")
    check(result_of(report, "int8")["cost"]["chunks_run"] == CHUNKS, "the chunks were run anew, by the workers over CURVE")
    return workers


def strangers_get_in_nowhere(remote, scratch):
    wrong, _ = remote.keygen("admin", "stranger", allow=False)
    out = remote.jobs(wrong)
    check(out.returncode != 0 and "not allowed" in out.stderr, f"a key that is not allowed gets in nowhere: {out.stderr.strip()}")
    out = remote.jobs(None)
    check(out.returncode != 0, f"without a key nobody gets in: {out.stderr.strip()}")
    client, _ = remote.keygen("client", "user")
    wait_for(lambda: remote.jobs(client).returncode == 0, 10, "an allowed client lists jobs")
    out = remote.jobs(client, server=os.path.join(remote.keys, "stranger.pub"))
    check(out.returncode != 0, f"with another server's key nobody gets in: {out.stderr.strip()}")
    refused = remote.worker("fp32", client, os.path.join(scratch, "refused"))
    time.sleep(3)
    text = stop(refused)
    check("working" in text, "a worker with a client's key starts, and waits")
    out = remote.host.run(os.path.join(BIN, "assay"), "rpc", remote.endpoint, "assay.v1.Work/Lease", "{}", "--key", client,
                          "--server-public-key", remote.server)
    check(out.returncode == 9 and "role client" in out.stderr, f"a client's key may not lease: {out.stderr.strip()}")
    remote.revoke("user")
    wait_for(lambda: remote.jobs(client).returncode != 0, 5, "a revoked key is out within seconds")


def probe(remote, *args):
    return remote.host.run(os.path.join(BIN, "assay-coordinator"), "--health", *args)


def probes_speak_curve(remote):
    """What a container's health check runs: the service's own settings; and what an operator runs on another host."""
    server = os.path.join(remote.data, "keys", "server.key")
    allowed = os.path.join(remote.data, "keys", "allowed")
    own = ("--public", remote.endpoint, "--server-key", server, "--keys", allowed)
    key, _ = remote.keygen("client", "prober")
    wait_for(lambda: remote.jobs(key).returncode == 0, 10, "the prober's key is allowed")
    done = probe(remote, *own, "--key", key)
    check(done.returncode == 0, f"a probe with the service's settings asks over CURVE: {done.stderr.strip()}")
    done = probe(remote, *own)
    check(done.returncode == 1 and "not allowed" in done.stderr and remote.endpoint in done.stderr,
          f"a probe whose key is not allowed fails with the reason: {done.stderr.strip()}")
    with open(remote.server, encoding="ascii") as file:
        public = next(line.split()[1] for line in file if line.startswith("public "))
    done = probe(remote, "--endpoint", f"{remote.endpoint}#{public}", "--key", key)
    check(done.returncode == 0, f"a probe asks an endpoint with its key: {done.stderr.strip()}")
    done = probe(remote, "--endpoint", remote.endpoint, "--key", key)
    check(done.returncode == 1, "without the server's key a probe trusts nobody")
    remote.revoke("prober")


def main():
    separate = sys.argv[1:] == ["netns"]
    try:
        with Host(separate) as host:
            run_on(host)
    except NoHost as error:
        print(f"skipped: {error}")
        sys.exit(SKIPPED)
    finish()


def run_on(host):
    with Directory() as data, Directory() as local, Directory() as scratch:
        endpoint = f"tcp://{host.address}:{free_port(host.address)}"
        remote = Remote(host, data, endpoint, os.path.join(scratch, "keys"))
        with Stack(data, "--public", endpoint, "--external", "all") as stack:
            key, secret = remote.keygen("worker", "w1")
            workers = figures_equal(remote, scratch, local, key)
            strangers_get_in_nowhere(remote, scratch)
            probes_speak_curve(remote)
            check(stack.service("inference", "int8") is not None, "the worker is registered")
            remote.revoke("w1")
            wait_for(lambda: stack.service("inference", "int8") is None, 20, "the coordinator hears no more of a revoked worker")
            texts = [stop(worker) for worker in workers]
        logs = "".join(open(os.path.join(folder, name), encoding="utf-8", errors="replace").read()
                       for folder, _, names in os.walk(os.path.join(data, "logs")) for name in names)
        check(secret not in logs + "".join(texts), "no secret stands in a log")
        config = host.run(os.path.join(BIN, "assay-inference"), "--precision", "fp32", "--key", secret, "--dump-config")
        check(config.returncode == 0 and secret not in config.stdout, "--dump-config does not print a key")


main()
