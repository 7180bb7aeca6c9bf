#!/bin/sh
# What the job runs: check, test, report. Whatever it leaves in the artifacts directory is kept.
# Exits 3 if a test fails; BREAK=1 makes one fail.
set -eu
cd "$(dirname "$0")"

artifacts=${REACTORCIDE_ARTIFACTS_DIR:-/job/artifacts}
mkdir -p "$artifacts"

echo "== check"
for script in *.sh; do
    sh -n "$script"
    echo "$script: syntax ok"
done

echo "== test"
: >"$artifacts/tests.tap"
if ! TEST_REPORT="$artifacts/tests.tap" sh test.sh; then
    echo "ci.sh: a test failed" >&2
    exit 3
fi

echo "== report"
sleep 1 # gives somebody who watches the log live something to watch
sh wordcount.sh poem.txt >"$artifacts/report.txt"
cat "$artifacts/report.txt"

echo "== done"
