#!/usr/bin/env bash
# From a fresh clone to every figure and table; `./run_all.sh --help` lists the options.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/workflow/setup.sh"
exec "$FEYNTUNE_PYTHON" -P -m feyntune reproduce "$@"
