"""Endpoints with keys behind them, and key files: what common/wire/address.h and keys.h are for the services.

An endpoint is "ipc://PATH", or "tcp://HOST:PORT" (IPv6 as "tcp://[::1]:PORT") where "#KEY" may follow: the server's public key, 64 hexadecimal
digits. A server that listens at two places is both, with a comma between."""

from __future__ import annotations

import ipaddress
import os
import pathlib
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Union

from .errors import AssayError, Status

KEY_BYTES = 32
KEY_FILE_BYTES_MAX = 4096
ADDRESSES_MAX = 2
IPC_PATH_BYTES_MAX = 107
ROLES = ("worker", "client", "metric", "admin")
_KEY = re.compile(f"[0-9a-fA-F]{{{2 * KEY_BYTES}}}")


@dataclass(frozen=True)
class Key:
    """A key pair, or with no secret a public key. A secret is never part of its text."""

    public: bytes
    role: str
    secret: bytes = b""

    def __repr__(self) -> str:
        return f"Key(public={self.public.hex()}, role={self.role!r})"


@dataclass(frozen=True)
class Address:
    """One endpoint, as ZeroMQ takes it, and the server's key."""

    text: str
    server_key: bytes = b""

    @property
    def is_ipc(self) -> bool:
        return self.text.startswith("ipc://")

    @property
    def is_loopback(self) -> bool:
        host = self.text.rpartition(":")[0].removeprefix("tcp://")
        try:
            address = ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return not self.is_ipc and (mapped or address).is_loopback

    @property
    def is_ipv6(self) -> bool:
        return self.text.startswith("tcp://[")


def _read_lines(path: Union[str, pathlib.Path], wanted: Iterable[str]) -> dict[str, str]:
    """The words of a key file by the first one of each line. A sentence never has the file's text in it."""
    try:
        with open(path, encoding="ascii") as file:
            lines = [line.split() for line in file.read(KEY_FILE_BYTES_MAX).splitlines()]
    except OSError as error:
        raise AssayError(Status.NOT_FOUND, f"key file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AssayError(Status.INVALID_ARGUMENT, f"key file {path} is not text") from error
    lines = [line for line in lines if line and not line[0].startswith("#")]
    found = {line[0]: line[1] for line in lines if len(line) == 2}
    whole = sorted(found) == sorted(wanted) and len(found) == len(lines) and found["role"] in ROLES
    if not whole or not all(_KEY.fullmatch(found[name]) for name in found if name != "role"):
        raise AssayError(
            Status.INVALID_ARGUMENT,
            f"key file {path}: wanted one line each of {', '.join(wanted)}, as assay keygen writes them",
        )
    return found


def read_secret_key(path: Union[str, pathlib.Path]) -> Key:
    """The pair in a secret file. PERMISSION_DENIED: others may read it."""
    words = _read_lines(path, ("role", "public", "secret"))
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o077:
        raise AssayError(
            Status.PERMISSION_DENIED, f"key file {path} has mode {mode:o}, wanted 600: others may read the secret"
        )
    return Key(bytes.fromhex(words["public"]), words["role"], bytes.fromhex(words["secret"]))


def read_public_key(path: Union[str, pathlib.Path]) -> Key:
    words = _read_lines(path, ("role", "public"))
    return Key(bytes.fromhex(words["public"]), words["role"])


def _parse_one(text: str) -> Address:
    endpoint, hash_sign, key = text.partition("#") if text.startswith("tcp://") else (text, "", "")
    if endpoint.startswith("ipc://"):
        found = len(os.fsencode(endpoint[len("ipc://") :]))
        if not 0 < found <= IPC_PATH_BYTES_MAX:
            raise AssayError(
                Status.INVALID_ARGUMENT, f'the path of "{endpoint}" has {found} bytes, wanted 1 to {IPC_PATH_BYTES_MAX}'
            )
        return Address(endpoint)
    match = re.fullmatch(r"tcp://(\[[0-9a-fA-F:.]+\]|[^#,:\[\]]+):(\d{1,5}|\*)", endpoint)
    if not match or (match.group(2) != "*" and int(match.group(2)) > 65535):
        raise AssayError(Status.INVALID_ARGUMENT, f'endpoint "{endpoint}" is neither ipc://PATH nor tcp://ADDRESS:PORT')
    if hash_sign and not _KEY.fullmatch(key):
        raise AssayError(
            Status.INVALID_ARGUMENT,
            f'endpoint "{endpoint}" is followed by something else than a key of 64 hexadecimal digits',
        )
    return Address(endpoint, bytes.fromhex(key))


def parse_endpoint(text: str) -> list[Address]:
    """INVALID_ARGUMENT: not one or two endpoints."""
    parts = text.split(",")
    if len(parts) > ADDRESSES_MAX:
        raise AssayError(Status.INVALID_ARGUMENT, f"a server has at most {ADDRESSES_MAX} endpoints, found {len(parts)}")
    return [_parse_one(part) for part in parts]


def choose(text: str, key: Key | None) -> Address:
    """Which of a server's endpoints a client uses: with a key of its own the first that has a server's key, else the
    first ipc socket, else the first without a key. PERMISSION_DENIED: none that it may use."""
    addresses = parse_endpoint(text)
    with_key = [address for address in addresses if address.server_key]
    plain = sorted((address for address in addresses if not address.server_key), key=lambda address: not address.is_ipc)
    chosen: Sequence[Address] = (with_key if key else []) + plain
    if not chosen:
        raise AssayError(
            Status.PERMISSION_DENIED, f"{addresses[0].text} is served by CURVE, and no key to connect with is given"
        )
    if not chosen[0].server_key and not chosen[0].is_ipc and not chosen[0].is_loopback:
        raise AssayError(
            Status.PERMISSION_DENIED,
            f'endpoint "{chosen[0].text}" is not a loopback address (127.x.y.z, [::1]): any other needs CURVE keys, a key to connect with '
            "and the server's public key behind the endpoint",
        )
    return chosen[0]


def with_server_key(endpoint: str, server: Key | None) -> str:
    """The endpoint with the server's key behind each tcp address that has none."""
    if server is None:
        return endpoint
    parts = []
    for address in parse_endpoint(endpoint):
        key = address.server_key or (b"" if address.is_ipc else server.public)
        parts.append(f"{address.text}#{key.hex()}" if key else address.text)
    return ",".join(parts)
