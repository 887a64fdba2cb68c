#!/usr/bin/env bash
# Brings the stack up, from the image that is there, with docker compose or any podman-compose.
# usage: compose/up.sh [SERVICE=REPLICAS ...]      as inference-int8=3
# ASSAY_PROJECT: the stack's name, that of `compose -f compose.yaml` unless given; README.md has what compose.yaml reads.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=compose/engine.sh
. ./engine.sh

if [[ $old_compose == no ]]; then
    exec "${compose[@]}" up -d --no-build "${@/#/--scale=}"
fi

# podman-compose 1.0 has no --scale that works, but knows replicas.
for pair in "$@"; do
    precision=${pair%=*}
    precision=${precision#inference-}
    export "ASSAY_${precision^^}_REPLICAS=${pair#*=}"
done
# It sleeps a second after each container that it starts: three of them sleep at the same time, each with a part of the
# stack. Not where all would have to make the network and the volumes.
if ! podman network exists "${project}_stack" || ! podman volume exists "${project}_artifacts"; then
    exec "${compose[@]}" up -d --no-build
fi
ups=() code=0
for part in "keys coordinator quantizer evaluator" "inference-fp32 inference-bf16" "inference-int8 inference-nf4"; do
    # shellcheck disable=SC2086
    "${compose[@]}" up -d --no-build $part &
    ups+=($!)
done
for up in "${ups[@]}"; do
    wait "$up" || code=$?
done
exit "$code"
