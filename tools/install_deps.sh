#!/usr/bin/env bash
# Installs what assay needs to build and run on Debian 12, through apt, as root or by sudo.
# usage: tools/install_deps.sh [--checks]      --checks: also what tools/check.sh and tests of the protocol use
# Does nothing, quickly and without the network, when everything is there.
set -euo pipefail

packages=(
    build-essential cmake ninja-build pkg-config ca-certificates git python3
    libzmq3-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler
    libcjson-dev libmicrohttpd-dev libyaml-dev liblmdb-dev libsodium-dev libxxhash-dev libcmocka-dev
)
# The tokenizer crate needs Rust 1.85; Debian 12 has it under these names (plain `cargo` is 0.66).
rust_packages=(cargo-web rustc-web)
check_packages=(clang-format-14 cppcheck python3-zmq python3-protobuf prometheus)
rust_minor_min=85

say() { printf 'install_deps: %s\n' "$*"; }
die() { printf 'install_deps: %s\n' "$*" >&2; exit 5; }

has_recent_cargo()
{
    local version
    version=$(cargo --version 2>/dev/null) || return 1
    [[ $version =~ ^cargo\ ([0-9]+)\.([0-9]+) ]] || return 1
    ((BASH_REMATCH[1] > 1 || (BASH_REMATCH[1] == 1 && BASH_REMATCH[2] >= rust_minor_min)))
}

is_installed()
{
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

for argument in "$@"; do
    case $argument in
    --checks) packages+=("${check_packages[@]}") ;;
    *)
        printf 'install_deps: unknown argument "%s" (known: --checks)\n' "$argument" >&2
        exit 3
        ;;
    esac
done
command -v dpkg-query >/dev/null || die "dpkg-query is missing: this script knows Debian 12 only; see README.md for the list of libraries"
has_recent_cargo || packages+=("${rust_packages[@]}")

missing=()
for package in "${packages[@]}"; do
    is_installed "$package" || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
    say "all ${#packages[@]} packages are installed"
    exit 0
fi

as_root=()
if ((EUID != 0)); then
    command -v sudo >/dev/null || die "needs root to install ${missing[*]}: run as root or install sudo"
    as_root=(sudo)
fi
say "installing ${missing[*]}"
"${as_root[@]}" apt-get -q update
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${missing[@]}" </dev/null

has_recent_cargo || die "cargo is still older than 1.$rust_minor_min: found '$(cargo --version 2>&1)'"
say "installed ${#missing[@]} packages"
