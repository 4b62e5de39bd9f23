"""What of the user's settings passes to what is started; what is supplied and set aside."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from feyntune import surroundings
from feyntune.errors import UserError
from feyntune.paths import REPOSITORY, output_root

ROOT = str(REPOSITORY)
OURS = {
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT}/workflow",
    "PYTHONNOUSERSITE": "1",
    "PYTHONUTF8": "1",
    "PIP_USER": "0",
    "MATPLOTLIBRC": "/dev/null",
    "JUPYTER_PREFER_ENV_PATH": "1",
}
# By family; what each does to a run that inherits it.
SET_ASIDE = {
    "the shell": ("CDPATH", "BASH_ENV", "ENV", "GLOBIGNORE", "POSIXLY_CORRECT", "GREP_OPTIONS"),
    "matplotlib": ("MPLBACKEND", "MPLCONFIGDIR"),
    "where pip installs": (
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_NO_DEPS",
        "PIP_DRY_RUN",
        "PIP_CONSTRAINT",
    ),
    "Python": ("PYTHONHOME", "PYTHONOPTIMIZE", "PYTHONINSPECT", "PYTHONSTARTUP", "PYTHONWARNINGS"),
    "accelerate": ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_CPU", "FSDP_VERSION"),
    "torchrun and MPI": ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "OMPI_COMM_WORLD_SIZE"),
    "digits": ("ATEN_CPU_CAPABILITY", "NVIDIA_TF32_OVERRIDE", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA"),
    "transformers": ("USE_TORCH", "TRANSFORMERS_VERBOSITY", "HF_DATASETS_IN_MEMORY_MAX_SIZE"),
    "kernels": ("JUPYTER_PATH", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"),
    "Snakemake": ("SNAKEMAKE_PROFILE", "SNAKEMAKE_OUTPUT_CACHE"),
    "git": ("GIT_DIR", "GIT_WORK_TREE"),
    "pytest and ruff": ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "RUFF_SELECT"),
}
PASSES = {
    "package indexes": ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"),
    "proxies": ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "PIP_PROXY"),
    "tokens": ("HF_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"),
    "providers' keys": (
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "GEMINI_API_KEY",
        "DEEPSEEK_API_KEY",
    ),
    "caches": ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "KAGGLEHUB_CACHE", "PIP_CACHE_DIR"),
    "processors": ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "SLURM_CONF", "SLURM_JOB_ID"),
    "records elsewhere": ("WANDB_MODE", "WANDB_PROJECT", "WANDB_API_KEY"),
    "a person's": ("PATH", "LANG", "LC_ALL", "TERM", "NO_COLOR", "TZ"),
    "our own": ("FEYNTUNE_OUTPUT", "FEYNTUNE_ROWS"),
}


def copied(folder: Path) -> Path:
    """The script in another checkout."""
    script = folder / "workflow" / surroundings.SCRIPT.name
    script.parent.mkdir(parents=True)
    script.write_bytes(surroundings.SCRIPT.read_bytes())
    return script


def given(monkeypatch, **variables: str) -> dict[str, str]:
    """What passes of these variables, beside those that a shell needs."""
    for name in list(os.environ):
        if name not in ("PATH", "HOME", "TMPDIR"):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return surroundings.ours()


@pytest.mark.parametrize("family", SET_ASIDE)
def test_is_set_aside(family, monkeypatch):
    found = given(monkeypatch, **dict.fromkeys(SET_ASIDE[family], "1"))
    assert not set(SET_ASIDE[family]) & set(found)
    assert OURS.items() <= found.items()


@pytest.mark.parametrize("family", PASSES)
def test_passes(family, monkeypatch):
    values = {name: "1" if name != "PATH" else os.environ["PATH"] for name in PASSES[family]}
    assert values.items() <= given(monkeypatch, **values).items()


def test_ours_win_over_the_users(monkeypatch):
    assert OURS.items() <= given(monkeypatch, **dict.fromkeys(OURS, "/another")).items()


def test_it_is_the_same_again(monkeypatch):
    found = given(monkeypatch, WORLD_SIZE="2")
    assert given(monkeypatch, **found) == found


def test_a_key_passes_under_the_name_that_an_experiment_gives_it(monkeypatch, tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/mine.yaml").write_text("x:\n  key_variable: MY_SECRET # mine\n")
    found = given(monkeypatch, MY_SECRET="s", ANOTHER="a", FEYNTUNE_OUTPUT=str(tmp_path))
    assert found["MY_SECRET"] == "s" and "ANOTHER" not in found


def test_a_certificate_file_passes_if_it_is_there(monkeypatch, tmp_path, capfd):
    there = tmp_path / "ca.pem"
    there.touch()
    found = given(monkeypatch, SSL_CERT_FILE=str(there), REQUESTS_CA_BUNDLE="/gone.pem")
    assert found["SSL_CERT_FILE"] == str(there) and "REQUESTS_CA_BUNDLE" not in found
    assert capfd.readouterr().err == "Set aside: REQUESTS_CA_BUNDLE (/gone.pem) cannot be read.\n"


def test_a_socks_proxy_is_set_aside_and_its_password_not_shown(monkeypatch, capfd):
    found = given(monkeypatch, all_proxy="socks5h://me:secret@host:1", HTTPS_PROXY="http://host:2")
    assert found["HTTPS_PROXY"] == "http://host:2" and "all_proxy" not in found
    said = capfd.readouterr().err
    assert said == "Set aside: all_proxy is a SOCKS proxy, which is not supported.\n"


def test_folders_of_somebody_else_are_set_aside(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    gone = str(tmp_path / "file" / "x")
    found = given(
        monkeypatch, TMPDIR=gone, XDG_CACHE_HOME=gone, XDG_DATA_HOME=str(tmp_path / "new")
    )
    assert "TMPDIR" not in found and "XDG_CACHE_HOME" not in found
    assert found["XDG_DATA_HOME"] == str(tmp_path / "new")


def test_functions_and_options_of_the_users_shell_do_nothing(monkeypatch, capfd):
    found = given(monkeypatch, **{"BASH_FUNC_cd%%": "() { echo no; }", "odd.name": "1"})
    assert found.items() >= OURS.items() and "odd.name" not in found
    assert not [name for name in found if name.startswith("BASH_FUNC")]
    monkeypatch.setenv("SHELLOPTS", "noglob:xtrace:verbose")
    assert surroundings.ours().items() >= OURS.items()
    assert capfd.readouterr().err == ""


def test_a_user_without_name_and_folder_gets_both(monkeypatch, tmp_path):
    """A container that runs as a number: libraries ask for the name, and for a folder."""
    (tmp_path / "id").write_text('#!/bin/sh\n[ "$1" = -u ] && echo 12345 || exit 1\n')
    (tmp_path / "id").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    (tmp_path / "file").touch()
    monkeypatch.setattr(surroundings, "SCRIPT", copied(tmp_path / "checkout"))
    found = given(monkeypatch, PATH=path, HOME=str(tmp_path / "file" / "home"))
    assert found["USER"] == found["LOGNAME"] == "user-12345"
    assert Path(found["HOME"]).is_dir() and os.access(found["HOME"], os.W_OK)
    again = given(monkeypatch, PATH=path, USER="me")
    assert again["USER"] == again["LOGNAME"] == "me"


def test_without_bash_it_is_one_line(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert surroundings.ours()["PATH"] == "/nowhere", "bash is where systems have it"
    monkeypatch.setattr(surroundings.shutil, "which", lambda *_, **__: None)
    with pytest.raises(UserError, match="Found no bash"):
        surroundings.ours()


SHOW = """
import json, os, sys
from feyntune import surroundings
surroundings.enter()
print(json.dumps([dict(os.environ), sys.flags.optimize, sys.path, sys.argv[1:]]))
"""


def test_a_command_begins_anew_where_python_has_read_a_setting(tmp_path):
    (tmp_path / "show.py").write_text(SHOW)
    hostile = {"PYTHONOPTIMIZE": "2", "PYTHONPATH": f"{ROOT}:/other", "WORLD_SIZE": "2"}
    command = [sys.executable, str(tmp_path / "show.py"), "a b", "{c}"]
    done = subprocess.run(command, env={**os.environ, **hostile}, capture_output=True, text=True)
    found, optimize, path, arguments = json.loads(done.stdout)
    assert optimize == 0 and "/other" not in path and arguments == ["a b", "{c}"]
    assert "WORLD_SIZE" not in found and OURS.items() <= found.items()


def test_a_colon_in_the_checkouts_name_is_said(tmp_path):
    """PYTHONPATH would be cut there."""
    command = ["bash", str(copied(tmp_path / "a:b")), "env"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    said = f"error: move this checkout to a folder without a colon: {tmp_path}/a:b\n"
    assert done.stderr == said


@pytest.mark.parametrize("start", ["/", "notebooks"])
def test_a_relative_output_is_the_same_folder_everywhere(start, monkeypatch):
    """The kernel of a notebook starts in another folder than the runner."""
    monkeypatch.chdir(REPOSITORY / start)
    monkeypatch.setenv("FEYNTUNE_OUTPUT", "../elsewhere")
    assert output_root() == REPOSITORY.parent / "elsewhere"
    monkeypatch.setenv("FEYNTUNE_OUTPUT", "~/elsewhere")
    assert output_root() == Path.home().resolve() / "elsewhere"
    monkeypatch.setenv("FEYNTUNE_OUTPUT", "")
    assert output_root() == REPOSITORY
