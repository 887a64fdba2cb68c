# shellcheck shell=bash
# What runs the stack, for up.sh and smoke.sh: docker with its compose plugin, else podman with podman-compose.
# Reads ASSAY_PROJECT; sets engine, project, compose (a command) and old_compose (yes: podman-compose 1.0, that of Debian 12).
project=${ASSAY_PROJECT:-compose} # as compose names it after the folder
old_compose=no
if command -v docker >/dev/null && docker compose version >/dev/null 2>&1; then
    engine=docker
    compose=(docker compose -p "$project" -f compose.yaml)
elif command -v podman >/dev/null && command -v podman-compose >/dev/null; then
    engine=podman
    compose=(podman-compose -p "$project" -f compose.yaml)
    [[ ! $(podman-compose --version 2>/dev/null) =~ podman-composer?\ version\ +1\.0\. ]] || old_compose=yes
else
    echo "needs docker with its compose plugin, or podman and podman-compose" >&2
    exit 6
fi
