# The set-up step that run_all.sh and run_tests.sh share: sourced, not run.
#
# Afterwards FEYNTUNE_PYTHON is an interpreter whose environment satisfies
# requirements.lock, its folder is first on PATH, and `import feyntune` finds this
# checkout. On failure the calling script ends with one line that says why.
#
#   1. the active environment (venv or conda), if it satisfies the lock;
#   2. else .venv here, if it is whole and satisfies the lock: at once and offline;
#   3. else .venv is made anew, once.
#
# What makes it safe to kill: .venv.unfinished exists from before the first change to
# .venv until after the last, so a .venv beside it is never used. An advisory lock on
# .venv.lock lets one set-up work at a time; the kernel drops it when the last process of
# that set-up is gone (a pip that outlived a killed script included), so it cannot be stale.
#
# Written for the bash 3.2 of macOS as well, and for `set -euo pipefail`.

source "$(dirname "${BASH_SOURCE[0]}")/surroundings.sh" # sets FEYNTUNE_ROOT

venv_dir=$FEYNTUNE_ROOT/.venv
venv_unfinished=$FEYNTUNE_ROOT/.venv.unfinished
venv_lock=$FEYNTUNE_ROOT/.venv.lock
venv_log=$FEYNTUNE_ROOT/.venv.log
# Says that this script made .venv, and for which folder: scripts and the editable install
# inside hold absolute paths, so a copied or moved checkout needs its own.
venv_made_for=$venv_dir/made-for-checkout

setup_fail() {
    echo "error: $1" >&2
    exit 1
}

# What keeps an interpreter's environment from satisfying the lock, one line per package;
# nothing and status 0 if it does satisfy it.
lock_problems() { # PYTHON
    local found
    if found=$("$1" "$FEYNTUNE_ROOT/workflow/check_lock.py" 2>/dev/null); then
        return 0
    fi
    echo "${found:-its Python does not start}"
    return 1
}

# Several lines in one: the first, and how many more.
in_short() { # LINES
    local more
    more=$(($(printf '%s\n' "$1" | wc -l) - 1))
    if ((more > 0)); then
        echo "${1%%$'\n'*}, and $more more"
    else
        echo "$1"
    fi
}

use_environment() { # FOLDER
    export FEYNTUNE_PYTHON="$1/bin/python"
    export PATH="$1/bin:$PATH"
}

# Use the active environment if it fits; otherwise say on one line why not.
use_active_environment() {
    local active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}} wrong
    if [ -z "$active" ] || [ "$active" -ef "$venv_dir" ]; then
        return 1
    fi
    if ! wrong=$(lock_problems "$active/bin/python"); then
        echo "The active environment $active does not satisfy requirements.lock" \
            "($(in_short "$wrong")): using .venv instead."
        return 1
    fi
    use_environment "$active"
}

# Status 0 if .venv can be used as it is; else print why not.
venv_problems() {
    if [ -e "$venv_unfinished" ]; then
        echo "an earlier set-up did not finish"
    elif [ -e "$venv_made_for" ] && [ "$(cat "$venv_made_for")" != "$FEYNTUNE_ROOT" ]; then
        echo "it was made for $(cat "$venv_made_for")"
    else
        lock_problems "$venv_dir/bin/python"
        return
    fi
    return 1
}

python_fits() { # COMMAND
    "$1" "$FEYNTUNE_ROOT/workflow/check_lock.py" --python >/dev/null 2>&1 &&
        "$1" -c 'import ensurepip, venv' >/dev/null 2>&1
}

# Print the first interpreter that can carry the environment. PYTHON, where it is set, is
# the user's choice and the only candidate.
find_python() {
    local candidate candidates=(python3.11 python3.12 python3.13 python3 python)
    if [ -n "${PYTHON:-}" ]; then
        candidates=("$PYTHON")
    fi
    for candidate in "${candidates[@]}"; do
        if python_fits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# Hold the lock on file descriptor 9 until it is closed. A file system without locks (some
# cluster scratch disks) goes without: then do not start two set-ups at once there.
lock_setup() { # PYTHON
    exec 9>"$venv_lock"
    "$1" - 9 <<'PYTHON'
import errno, fcntl, sys

descriptor = int(sys.argv[1])
try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("Waiting for another set-up of .venv in this folder ...", flush=True)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
except OSError as error:
    if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
        raise
PYTHON
}

unlock_setup() {
    exec 9>&-
}

# On all cores, where pip would use one. Not left to the first import: where
# PYTHONDONTWRITEBYTECODE is set, every process would compile everything again. A few
# packages ship templates that are no valid Python; those do not matter.
compile_packages() {
    "$venv_dir/bin/python" -m compileall -qq -j 0 "$venv_dir/lib" || true
}

# Joined by && because `set -e` does not hold inside a function whose status is tested.
install_venv() { # PYTHON
    local pip=("$venv_dir/bin/python" -m pip --disable-pip-version-check --no-input)
    rm -rf "$venv_dir" &&
        "$1" -m venv "$venv_dir" &&
        "${pip[@]}" install --no-compile -r "$FEYNTUNE_ROOT/requirements.lock" &&
        compile_packages &&
        # The lock holds setuptools: no second, unpinned download of it for the build.
        "${pip[@]}" install --no-deps --no-build-isolation -e "$FEYNTUNE_ROOT" &&
        echo "$FEYNTUNE_ROOT" >"$venv_made_for"
}

# Keep pip's log; on a terminal show what it is at, on one line.
follow_log() {
    local line
    if [ ! -t 1 ]; then
        cat >"$venv_log"
        return
    fi
    tee "$venv_log" | while IFS= read -r line; do
        case $line in
        Collecting* | Installing* | *Downloading*) printf '\r\033[K  %.70s' "$line" ;;
        esac
    done
    printf '\r\033[K'
}

make_venv() { # PYTHON
    local wrong
    echo "Setting up .venv from requirements.lock (once, a few minutes; details in .venv.log) ..."
    : >"$venv_unfinished"
    # pipefail, which the callers set, makes a failed installation that of the pipeline.
    if ! install_venv "$1" 2>&1 | follow_log; then
        tail -n 8 "$venv_log" >&2
        setup_fail "setting up .venv failed; run again to start it anew (full log: .venv.log)"
    fi
    if ! wrong=$(lock_problems "$venv_dir/bin/python"); then
        setup_fail "the new .venv does not satisfy requirements.lock ($(in_short "$wrong"))"
    fi
    rm "$venv_unfinished"
}

# Called with the lock held. Only what this script made is ever removed.
replace_venv() { # PYTHON WHY
    if [ -e "$venv_dir" ]; then
        if [ ! -e "$venv_unfinished" ] && [ ! -e "$venv_made_for" ]; then
            setup_fail ".venv does not satisfy requirements.lock ($2) and was not made by $0: \
install the lock in it, or move it away"
        fi
        echo "The .venv here cannot be used as it is ($2)."
    fi
    make_venv "$1"
}

set_up_venv() {
    local python wrong
    if venv_problems >/dev/null; then
        return
    fi
    python=$(find_python) || setup_fail "found no Python 3.11, 3.12 or 3.13 with its venv module\
${PYTHON:+ at PYTHON=$PYTHON}; install one, or name it: PYTHON=/path/to/python3.11 $0"
    lock_setup "$python"
    # Another set-up may have finished while this one waited.
    if ! wrong=$(venv_problems); then
        replace_venv "$python" "$(in_short "$wrong")"
    fi
    unlock_setup
}

# Whether the calling script was asked what it does: that must not take the minutes of a set-up.
asks_for_help() { # ARGUMENTS...
    local argument
    for argument in "$@"; do
        case $argument in
        -h | --help) return 0 ;;
        esac
    done
    return 1
}

if ! use_active_environment; then
    if asks_for_help "$@" && ! venv_problems >/dev/null; then
        sed -n '/^```$/,/^```$/ { /^```$/d; p; }' "$FEYNTUNE_ROOT/docs/commands.md"
        exit
    fi
    set_up_venv
    use_environment "$venv_dir"
    export VIRTUAL_ENV=$venv_dir
fi
