#!/usr/bin/env bash
# Lint, the experiment `smoke` through the workflow, unit tests, and every notebook.
#
#   ./run_tests.sh [PYTEST OPTIONS]     options go to the first pytest: -x -k perplexity
#
# Options that only ask (--collect-only, --fixtures, --markers, --version) run nothing else.
set -euo pipefail
for option in "$@"; do
    case $option in
    -h | --help)
        sed -n '2,/^set/ s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit
        ;;
    --collect-only | --co | --fixtures | --markers | -V | --version) only_asked=yes ;;
    esac
done
source "$(dirname "${BASH_SOURCE[0]}")/workflow/setup.sh"
cd "$FEYNTUNE_ROOT"
if [ -n "${only_asked:-}" ]; then
    exec "$FEYNTUNE_PYTHON" -m pytest "$@"
fi

# Nothing here may need the network once the environment exists.
export HF_HUB_OFFLINE=1
# Results of this run alone: never those of an earlier one, and none left behind.
smoke_output=$(mktemp -d)
smoke_log=$(mktemp)
test_log=$(mktemp)
clean_up() {
    if [ -n "${smoke_process:-}" ] && kill "$smoke_process" 2>/dev/null; then
        wait "$smoke_process" || true # it would go on writing
    fi
    rm -rf "$smoke_output" "$smoke_log" "$test_log"
}
trap clean_up EXIT
# The user's own profile of IPython may run code in every kernel.
export IPYTHONDIR=$smoke_output/ipython
# A hundred processes follow: what the first one compiles is kept for the others (git ignores it).
unset PYTHONDONTWRITEBYTECODE
# One thread a process, as in the workflow: the same sums, and no two fighting for a core.
export OMP_NUM_THREADS=1
# Four processes, as many tests wait for others that they start. The files of a folder come in order,
# so that single long ones are not the last.
workers=(-n 4 --dist loadfile --no-loadscope-reorder)

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

# Beside the first tests: it leaves half of the machine idle, and those that need it come later.
start_smoke() {
    FEYNTUNE_OUTPUT=$smoke_output python -m feyntune reproduce --experiment smoke \
        >"$smoke_log" 2>&1 &
    smoke_process=$!
}

smoke() {
    local status=0
    wait "$smoke_process" || status=$?
    cat "$smoke_log"
    return "$status"
}

unit_tests() {
    FEYNTUNE_SMOKE_OUTPUT=$smoke_output python -m pytest -rs "${workers[@]}" "$@" |
        tee "$test_log"
}

# Every stage's notebook is of `smoke` by default; explore.ipynb is of `demo`, and is made so here.
notebooks() {
    python -m papermill --prepare-only -p experiment smoke --log-level WARNING \
        notebooks/explore.ipynb - >"$smoke_output/explore.ipynb" &&
        FEYNTUNE_OUTPUT=$smoke_output PYTHONPATH=tests${PYTHONPATH:+:$PYTHONPATH} \
            python -m pytest "${workers[@]}" --nbval-lax -p own_results -p no:cacheprovider \
            -W ignore --ignore notebooks/explore.ipynb notebooks/ "$smoke_output/explore.ipynb"
}

section "lint" python -m ruff check .
section "format" python -m ruff format --check .
start_smoke
section "tests" unit_tests "$@"
section "smoke" smoke
section "notebooks" notebooks

printf '\n'
if grep -q '^SKIPPED' "$test_log"; then
    echo "Not run here:"
    grep '^SKIPPED' "$test_log" | sed 's/^SKIPPED/ /'
fi
if ((${#failed[@]} > 0)); then
    printf 'Failed after %d s: %s\n' "$SECONDS" "${failed[*]}"
    exit 1
fi
printf 'All passed in %d s.\n' "$SECONDS"
