#!/usr/bin/env bash
# Lint, tests (the smoke experiment end to end among them), and every notebook.
# Options go to the first pytest: ./run_tests.sh -x -k perplexity
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source workflow/setup.sh

# Nothing here may need the network once the environment exists.
export HF_HUB_OFFLINE=1

failed=()

# Run one section to its end, whatever came of the earlier ones.
section() { # TITLE COMMAND...
    local title=$1 started=$SECONDS verdict=passed
    shift
    printf '\n=== %s ===\n' "$title"
    if ! "$@"; then
        verdict=FAILED
        failed+=("$title")
    fi
    printf -- '--- %s: %s in %d s\n' "$title" "$verdict" $((SECONDS - started))
}

python() {
    "$FEYNTUNE_PYTHON" "$@"
}

section "lint" python -m ruff check .
section "format" python -m ruff format --check .
section "tests" python -m pytest "$@"
section "notebooks" python -m pytest --nbval-lax -p no:cacheprovider notebooks/

printf '\n'
if ((${#failed[@]} > 0)); then
    printf 'Failed after %d s: %s\n' "$SECONDS" "${failed[*]}"
    exit 1
fi
printf 'All passed in %d s.\n' "$SECONDS"
