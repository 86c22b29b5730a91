#!/usr/bin/env bash
# After a run of the tests that failed: at most two tests are run again, alone. What fails again, or more than two, is red.
# They share two cores with everything else that runs, and a run has more than 9,000 chances. What passed only now is named, and is a defect to be found.
#   .ci/again.sh TASK CACHE    the task that ran them, and pytest's cache of that run
set -euo pipefail
cd "$(dirname "$0")/.."
failed=$(.venv/bin/python -c 'import json, pathlib, sys; print(*json.loads(pathlib.Path(sys.argv[1]).read_text()), sep="\n")' "$2/v/cache/lastfailed")
count=$(printf '%s\n' "$failed" | grep -c . || true)
[ "$count" -ge 1 ] && [ "$count" -le 2 ] || { printf 'again: %s tests failed: not run again\n' "$count" >&2; exit 1; }
./task "$1" -- --last-failed --last-failed-no-failures none
printf 'again: passed only when run alone, to be mended:\n%s\n' "$failed"
