#!/bin/sh
# service.sh NAME [ARGUMENTS]: one service of the stack, told to others by the address of its container.
# Waits for the keys, which another container makes when the stack comes up for the first time.
set -eu
name=$1
shift
waited=0
until [ -s "$ASSAY_KEY" ] && [ -s "$ASSAY_SERVER_PUBLIC_KEY" ]; do
    waited=$((waited + 1))
    if [ "$waited" -gt 300 ]; then
        echo "assay-$name: no keys at $ASSAY_KEY after 30 s: look at the log of the service keys" >&2
        exit 6
    fi
    sleep 0.1
done
mkdir -p -m 0700 /tmp/assay # its socket, for the owner
exec "assay-$name" --advertise "$(hostname -i | cut -d' ' -f1)" "$@"
