#!/bin/sh
# Makes the stack's keys, once: what is there stays. Runs as a service of compose.yaml that ends.
#   /keys/server   server.key (coordinator, quantizer, evaluator: with it they serve, and connect to each other), allowed/*.pub
#   /keys/worker   worker.key (all inference workers), server.pub, allowed/*.pub
#   /keys/client   client.key and server.pub: for users, outside
set -eu
umask 077
mkdir -p /keys/server/allowed /keys/worker/allowed /keys/client
key() {
    directory=$1 name=$2 role=$3
    [ -s "$directory/$name.key" ] || assay keygen --role "$role" --name "$name" -o "$directory"
}
key /keys/server server admin
key /keys/worker worker worker
key /keys/client client client
# copy_to DIRECTORY FILE...: those that are not there as they are; services watch the directories
copy_to() {
    directory=$1
    shift
    for file in "$@"; do
        cmp -s "$file" "$directory/${file##*/}" || cp "$file" "$directory"
    done
}
for directory in /keys/server/allowed /keys/worker/allowed; do
    copy_to "$directory" /keys/server/server.pub /keys/worker/worker.pub /keys/client/client.pub
done
copy_to /keys/worker /keys/server/server.pub
copy_to /keys/client /keys/server/server.pub
echo "keys: ready"
