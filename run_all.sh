#!/usr/bin/env bash
# From a fresh clone to every figure and table; `./run_all.sh --help` lists the options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source workflow/setup.sh
exec "$FEYNTUNE_PYTHON" -m feyntune reproduce "$@"
