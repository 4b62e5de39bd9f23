# The one place that sets the surroundings of everything that is started here: of a user's settings
# those pass that are named here, what is missing is supplied, the rest is set aside, never refused.
#
#   source workflow/surroundings.sh               for this shell: workflow/setup.sh
#   bash workflow/surroundings.sh COMMAND...      for one command: feyntune/surroundings.py
#
# A variable that is not here changes nothing in a run. Written for the bash 3.2 of macOS as well.

# First what would change the meaning of the lines below: with CDPATH `cd` prints, and a shell
# hands its functions and options on.
unset CDPATH GLOBIGNORE POSIXLY_CORRECT
users_path=${PATH-}
PATH=$users_path:/usr/bin:/bin # for the tools that are used here
for name in $(compgen -A function); do unset -f "$name"; done
set +fvx +o posix
shopt -u nocasematch nullglob failglob

FEYNTUNE_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

passes() { # NAME
    case $1 in
    # Who and where, language, terminal.
    PATH | HOME | USER | LOGNAME | SHELL | PWD | OLDPWD | SHLVL | HOSTNAME) ;;
    TMPDIR | XDG_*_HOME | XDG_*_DIR | KRB5CCNAME) ;;
    LANG | LANGUAGE | LC_* | TZ) ;;
    TERM | COLORTERM | COLUMNS | LINES | NO_COLOR | FORCE_COLOR | DISPLAY | BROWSER) ;;
    COMP_* | _FEYNTUNE_COMPLETE) ;;
    # Our own (an unknown one is said by name), the environment, tests and build servers.
    FEYNTUNE_* | PYTHON | VIRTUAL_ENV | CONDA_PREFIX | CONDA_DEFAULT_ENV) ;;
    PYTEST_CURRENT_TEST | PYTEST_XDIST_* | CI | GITHUB_*) ;;
    PYTHONUNBUFFERED | PYTHONDONTWRITEBYTECODE | PYTHONPYCACHEPREFIX) ;;
    # Package indexes: where packages come from, not where they go.
    PIP_INDEX_URL | PIP_EXTRA_INDEX_URL | PIP_FIND_LINKS | PIP_NO_INDEX | PIP_TRUSTED_HOST) ;;
    PIP_PROXY | PIP_CERT | PIP_CLIENT_CERT | PIP_KEYRING_PROVIDER | PIP_CONFIG_FILE) ;;
    PIP_CACHE_DIR | PIP_NO_CACHE_DIR | PIP_DEFAULT_TIMEOUT | PIP_TIMEOUT | PIP_RETRIES) ;;
    # The network: proxies, certificates.
    HTTP_PROXY | HTTPS_PROXY | FTP_PROXY | ALL_PROXY | NO_PROXY) ;;
    http_proxy | https_proxy | ftp_proxy | all_proxy | no_proxy) ;;
    SSL_CERT_FILE | SSL_CERT_DIR | REQUESTS_CA_BUNDLE | CURL_CA_BUNDLE) ;;
    # Tokens and keys, the caches and hubs of outside sources.
    *_TOKEN | *_API_KEY | KAGGLE_* | KAGGLEHUB_*) ;;
    HF_HOME | HF_TOKEN_PATH | HF_ENDPOINT | HF_HUB_* | HF_XET_*) ;;
    HF_DATASETS_CACHE | HF_DATASETS_OFFLINE | HUGGINGFACE_HUB_CACHE) ;;
    WANDB_* | TRACKIO_*) ;;
    # Processors, GPUs, clusters.
    OMP_NUM_THREADS) ;; # for the command itself; every stage has its own number
    CUDA_VISIBLE_DEVICES | CUDA_DEVICE_ORDER | CUDA_HOME | CUDA_PATH | BNB_CUDA_VERSION) ;;
    NVIDIA_VISIBLE_DEVICES | NVIDIA_DRIVER_CAPABILITIES | PYTORCH_CUDA_ALLOC_CONF) ;;
    LD_LIBRARY_PATH | DYLD_LIBRARY_PATH | CC | CXX | TRITON_CACHE_DIR) ;;
    SLURM_* | SBATCH_*) ;;
    *) return 1 ;;
    esac
}

# The variables that experiments name for their providers' keys.
names_of_keys() (
    cd "$FEYNTUNE_ROOT" &&
        grep -hosE 'key_variable: *"?[A-Za-z_][A-Za-z_0-9]*' experiments/*.yaml \
            "${FEYNTUNE_OUTPUT:-.}"/experiments/*.yaml | sed 's/.*[: "]//' || true
)

set_aside_the_rest() {
    local name keys
    keys=" $(names_of_keys | tr '\n' ' ') "
    for name in $(compgen -e); do
        if ! passes "$name" && [[ $keys != *" $name "* ]]; then
            # SHELLOPTS cannot be unset, only kept from what is started.
            unset "$name" 2>/dev/null || export -n "${name?}"
        fi
    done
}

# --- what passes under a condition --------------------------------------------------------------

set_aside() { # NAME WHY
    echo "Set aside: $1 $2." >&2
    unset "$1"
}

# Whether a folder can be written to, or made.
can_write() { # FOLDER
    local folder=$1
    while [ -n "$folder" ] && [ ! -e "$folder" ]; do
        folder=$(dirname "$folder")
    done
    [ -d "$folder" ] && [ -w "$folder" ]
}

check_certificates() {
    local name
    for name in SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE PIP_CERT; do
        if [ -n "${!name:-}" ] && [ ! -r "${!name%%:*}" ]; then
            set_aside "$name" "(${!name}) cannot be read"
        fi
    done
}

# The client of the Hub has no SOCKS. A proxy's address may hold a password.
check_proxies() {
    local name
    for name in ALL_PROXY HTTP_PROXY HTTPS_PROXY all_proxy http_proxy https_proxy PIP_PROXY; do
        case ${!name:-} in
        [sS][oO][cC][kK][sS]*) set_aside "$name" "is a SOCKS proxy, which is not supported" ;;
        esac
    done
}

# Those of another user stay after `su`.
check_folders() {
    local name
    for name in XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME XDG_STATE_HOME XDG_RUNTIME_DIR; do
        can_write "${!name:-}" || unset "$name"
    done
    if [ -n "${TMPDIR:-}" ] && [ ! -w "$TMPDIR" ]; then
        set_aside TMPDIR "($TMPDIR) cannot be written to"
    fi
}

# --- what is supplied ---------------------------------------------------------------------------

# A container may run as a user without a name and without a folder.
supply_user() {
    local name
    if ! name=$(id -un 2>/dev/null); then
        name=user-$(id -u)
    fi
    export USER=${USER:-$name}
    export LOGNAME=${LOGNAME:-$USER}
    if [ ! -d "${HOME:-}" ] || ! can_write "$HOME"; then
        HOME=$FEYNTUNE_ROOT/.home
        if ! can_write "$HOME"; then
            HOME=${TMPDIR:-/tmp}/feyntune-home-$(id -u)
        fi
        (umask 077 && mkdir -p "$HOME")
        export HOME
    fi
}

# Also against what configuration files say: pip's `user`, a matplotlibrc, packages of the user's.
# PYTHONPATH makes this checkout's feyntune the one that every process imports, wherever it starts:
# an active environment may hold none, or that of another checkout.
supply_settings() {
    export PYTHONPATH=$FEYNTUNE_ROOT:$FEYNTUNE_ROOT/workflow
    export PYTHONNOUSERSITE=1 PYTHONUTF8=1
    export PIP_USER=0
    export MATPLOTLIBRC=/dev/null
    export JUPYTER_PREFER_ENV_PATH=1
}

# PATH and PYTHONPATH are lists.
case $FEYNTUNE_ROOT in
*:*)
    echo "error: move this checkout to a folder without a colon: $FEYNTUNE_ROOT" >&2
    exit 2
    ;;
esac
set_aside_the_rest
check_certificates
check_proxies
check_folders
supply_user
supply_settings

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    exec "$@"
fi
PATH=$users_path
