#!/usr/bin/env bash
# Builds the image, brings the stack up, and shows that it works: the main job through the published port gives the figures of a
# single-machine run, also with three int8 workers of which one is killed; a stack that comes up again reuses the records.
# usage: compose/smoke.sh      needs docker with its compose plugin, or podman and podman-compose; python3
# ASSAY_BUILD_ARGS: more arguments of the build, as "--build-arg CA_BUNDLE=/ca.crt"; ASSAY_SMOKE_BUILD=no: the image is there;
# ASSAY_SMOKE_UP_SECONDS: what the second up may take, 10 unless a busy machine is known to need more.
set -euo pipefail
cd "$(dirname "$0")"
export ASSAY_IMAGE=${ASSAY_IMAGE:-localhost/assay} ASSAY_PORT=${ASSAY_PORT:-7421}
export ASSAY_PROJECT=${ASSAY_PROJECT:-assay-smoke}
up_seconds_max=${ASSAY_SMOKE_UP_SECONDS:-10}
# shellcheck source=compose/engine.sh
. ./engine.sh

scratch=$(mktemp -d)
services=(coordinator quantizer evaluator inference-fp32 inference-bf16 inference-int8 inference-nf4)
say() { printf 'smoke: %s\n' "$*"; }
fail() {
    printf 'smoke: FAILED: %s\n' "$*" >&2
    exit 1
}
containers() { # of a service; all that run
    "$engine" ps -q --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1"
}
# take_down LOG ARGUMENTS-OF-DOWN...: podman-compose 1.6 forgets replicas behind the first, and then cannot remove what they use.
take_down() {
    local ids
    "${compose[@]}" down >"$1" 2>&1 || true
    mapfile -t ids < <("$engine" ps -aq --filter "label=com.docker.compose.project=$project")
    ((${#ids[@]} == 0)) || "$engine" rm -f "${ids[@]}" >>"$1" 2>&1 || true
    "${compose[@]}" down "${@:2}" >>"$1" 2>&1
}
clean_up() {
    local code=$?
    if ((code)); then
        for service in "${services[@]}"; do
            for id in $(containers "$service"); do
                printf '== %s\n' "$service" >&2
                "$engine" logs --tail 15 "$id" >&2 || true
            done
        done
    fi
    take_down "$scratch.down" -v || cat "$scratch.down" >&2
    rm -rf "$scratch" "$scratch.down"
    exit "$code"
}
trap clean_up EXIT

# bring_up SERVICE=REPLICAS...: up, and waits until every container says by its --health that it serves.
bring_up() {
    local begin=$SECONDS waits=() i
    ./up.sh "$@" >"$scratch/up.log" 2>&1 || { cat "$scratch/up.log" >&2; fail "up"; }
    for service in "${services[@]}"; do
        wait_healthy "$service" "$begin" "$@" &
        waits+=($!)
    done
    for i in "${!waits[@]}"; do
        wait "${waits[i]}" || { grep -i error "$scratch/up.log" >&2; fail "${services[i]} is not healthy within 60 s"; }
    done
}
wait_healthy() { # SERVICE BEGIN SERVICE=REPLICAS...
    until all_healthy "$1" "${@:3}"; do
        ((SECONDS - $2 < 60)) || return 1
        sleep 0.2
    done
}
all_healthy() {
    local service=$1 want=1 program=assay-${1%%-*} count=0
    shift
    for pair in "$@"; do [[ $pair == "$service="* ]] && want=${pair#*=}; done
    for id in $(containers "$service"); do
        "$engine" exec "$id" "$program" --health >/dev/null 2>&1 || return 1
        count=$((count + 1))
    done
    ((count == want))
}

# client NAME ARGUMENTS: assay in a container of its own, on the host's network, as this user; its report in scratch/NAME
client() {
    local out=$1
    shift
    mkdir -p "$scratch/$out"
    "$engine" run --rm --network host --user "$(id -u):$(id -g)" -v "$scratch:/scratch" -v "$PWD/../data:/texts:ro" \
        -v "$PWD/../models:/models:ro" "$ASSAY_IMAGE" assay "$@" --out "/scratch/$out" </dev/null
}
job=(eval /models/assay-tiny --reference fp32 --variants int8 --corpus /texts/wikitext-2/wiki.test.head.raw)
remote=(--coordinator "tcp://127.0.0.1:$ASSAY_PORT" --key /scratch/keys/client.key --server-public-key /scratch/keys/server.pub)
ends_well() { # EXIT-CODE WHAT: 0, 1 and 2 are verdicts
    (($1 <= 2)) || fail "$2 ended with exit code $1"
}
same_figures() {
    python3 compare_reports.py "$scratch/$1" "$scratch/$2" || fail "$1 and $2 differ"
}

if [[ ${ASSAY_SMOKE_BUILD:-yes} != no ]]; then
    say "building $ASSAY_IMAGE"
    # shellcheck disable=SC2086
    "$engine" build ${ASSAY_BUILD_ARGS:-} -t "$ASSAY_IMAGE" -f Dockerfile .. >"$scratch/build.log" 2>&1 || {
        tail -40 "$scratch/build.log" >&2
        fail "the image"
    }
fi

say "the same job on one machine, to compare with"
code=0
client single "${job[@]}" --data /scratch/single-data >"$scratch/single.log" 2>&1 || code=$?
ends_well "$code" "the single-machine run"

say "up"
begin=$SECONDS
bring_up
say "all ${#services[@]} services are healthy after $((SECONDS - begin)) s"
mkdir -p "$scratch/keys"
coordinator=$(containers coordinator)
for file in client.key server.pub; do
    "$engine" exec "$coordinator" cat "/keys/client/$file" >"$scratch/keys/$file"
    chmod 600 "$scratch/keys/$file"
done

say "a part of the job through 127.0.0.1:$ASSAY_PORT"
code=0
client part "${job[@]}" --chunks 32 "${remote[@]}" >"$scratch/part.log" 2>&1 || code=$?
tail -3 "$scratch/part.log"
ends_well "$code" "the job"

say "three int8 workers, one of them killed in mid-job"
bring_up inference-int8=3
(
    code=0
    client killed "${job[@]}" "${remote[@]}" >"$scratch/killed.log" 2>&1 || code=$?
    echo "$code" >"$scratch/killed.code"
) &
runner=$!
sleep 3
victims=$(containers inference-int8)
"$engine" kill --signal KILL "${victims%%$'\n'*}" >/dev/null
say "killed a worker $([[ -e $scratch/killed.code ]] && echo 'after the job' || echo 'in mid-job')"
[[ ! -e $scratch/killed.code ]] || fail "the job had ended before a worker could be killed"
wait "$runner"
ends_well "$(cat "$scratch/killed.code")" "the job whose worker was killed"
same_figures single killed

say "down, and up again: the records are there"
take_down "$scratch/down.log" || { cat "$scratch/down.log" >&2; fail "down"; }
begin=$(date +%s%N)
bring_up
took_ms=$((($(date +%s%N) - begin) / 1000000))
say "up again in $took_ms ms"
((took_ms < up_seconds_max * 1000)) || fail "the second up took $took_ms ms, wanted less than $up_seconds_max s"
code=0
client again "${job[@]}" "${remote[@]}" >"$scratch/again.log" 2>&1 || code=$?
ends_well "$code" "the job after the restart"
same_figures single again
python3 compare_reports.py --all-cached "$scratch/again" || fail "the job after the restart ran chunks again"

say "passed"
