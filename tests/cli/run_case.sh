#!/bin/sh
# Runs CASE.sh in an empty directory and compares what it prints, both streams, with CASE.exp.
# With UPDATE=1 it writes CASE.exp instead.
set -u
here=$(cd "$(dirname "$0")" && pwd)
case_name=$1
scratch=$(mktemp -d /tmp/assay-cli-XXXXXX) || exit 1
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/home" "$scratch/case"
cd "$scratch/case" || exit 1
export HOME="$scratch/home"
for variable in $(env | sed -n 's/^\(ASSAY_[A-Z_]*\)=.*/\1/p'); do
  case $variable in ASSAY_BIN | ASSAY_SOURCE | ASSAY_SHARED) ;; *) unset "$variable" ;; esac
done
unset XDG_DATA_HOME

# One command: what was typed, what it says, how it ends.
run() {
  echo "\$ assay $*"
  "$ASSAY_BIN/assay" "$@" </dev/null
  echo "exit $?"
}

(. "$here/$case_name.sh") >"$scratch/found" 2>&1
sed -i -e "s|$scratch|SCRATCH|g" -e "s|$ASSAY_SOURCE|SOURCE|g" "$scratch/found"
if [ "${UPDATE:-}" = 1 ]; then
  cp "$scratch/found" "$here/$case_name.exp"
  exit 0
fi
if ! grep -q '^exit ' "$scratch/found"; then
  echo "$case_name: no command was run"
  exit 1
fi
diff -u "$here/$case_name.exp" "$scratch/found"
