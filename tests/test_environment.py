"""The environment: three descriptions that agree, and a set-up that survives being killed.

The set-up tests run the real ``workflow/setup.sh`` with the real venv and pip, offline, on
a checkout whose lock pins nothing, so that building its ``.venv`` takes seconds.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
CHECK = ROOT / "workflow" / "check_lock.py"
LOCK = ROOT / "requirements.lock"

SOURCED = ("workflow/setup.sh", "workflow/surroundings.sh")

# A project that setuptools is not needed for: its own build backend writes the one wheel
# that an editable install wants.
STUB_PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
STUB_BACKEND = """
import zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    name, info = "stub-1-py3-none-any.whl", "stub-1.dist-info/"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: stub\\nVersion: 1\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return name
"""
STUB_SCRIPT = """#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/workflow/setup.sh"
echo "ready: $FEYNTUNE_PYTHON"
"""


def pins() -> dict[str, str]:
    """Return every pin of the lock, whatever its marker, by canonical name."""
    lines = (line.split("#")[0].strip() for line in LOCK.read_text().splitlines())
    found = {}
    for requirement in map(Requirement, filter(None, lines)):
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{requirement} is not an exact pin"
        assert canonicalize_name(requirement.name) not in found, f"{requirement} twice"
        found[canonicalize_name(requirement.name)] = specifier.version
    return found


def project() -> dict:
    """Return the ``[project]`` table of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def direct_dependencies() -> list[Requirement]:
    """Return what pyproject.toml asks for, the ``test`` extra included."""
    asked = project()["dependencies"] + project()["optional-dependencies"]["test"]
    return [Requirement(text) for text in asked]


# --- three descriptions of one environment ------------------------------------------------


@pytest.mark.parametrize("requirement", direct_dependencies(), ids=lambda r: r.name)
def test_lock_satisfies_pyproject(requirement):
    pinned = pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pinned, prereleases=True)


def test_lock_is_closed_under_requirements():
    """Whatever a pinned and installed package needs here is pinned too, at a fitting version."""
    pinned = pins()
    for name in pinned:
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # pinned for other machines
            continue
        for need in map(Requirement, needs):
            # CUDA builds of torch bring their own libraries; the lock says so.
            cuda = need.name.startswith(("cuda-", "nvidia-", "triton"))
            if cuda or (need.marker and not need.marker.evaluate({"extra": ""})):
                continue
            assert canonicalize_name(need.name) in pinned, f"{name} needs {need}"
            assert need.specifier.contains(pinned[canonicalize_name(need.name)]), f"{name}: {need}"


def test_torch_is_the_same_everywhere():
    (asked,) = [r for r in direct_dependencies() if r.name == "torch"]
    assert str(asked.specifier) == "==2.13.0"
    assert "torch==2.13.0" in LOCK.read_text().splitlines()


def test_environment_yml_installs_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *from_conda, from_pip = environment["dependencies"]
    assert from_pip == {"pip": ["-r requirements.lock", "-e ."]}
    (python,) = [text for text in from_conda if text.startswith("python=")]
    assert SpecifierSet(project()["requires-python"]).contains(python.removeprefix("python="))


def test_python_range_is_the_same_everywhere():
    source = CHECK.read_text()
    allowed = SpecifierSet(project()["requires-python"])
    assert "PYTHON_FROM = (3, 11)" in source
    assert "PYTHON_BELOW = (3, 14)" in source
    assert [f"3.{minor}" in allowed for minor in range(10, 15)] == [False, True, True, True, False]


@pytest.mark.parametrize("script", ["run_all.sh", "run_tests.sh", ".ci/run", *SOURCED])
def test_scripts_are_valid_bash(script):
    subprocess.run(["bash", "-n", ROOT / script], check=True)
    assert os.access(ROOT / script, os.X_OK) == (script not in SOURCED)


# --- check_lock.py ------------------------------------------------------------------------


def check(lock: Path) -> subprocess.CompletedProcess:
    """Run check_lock.py on a lock file with this interpreter."""
    command = [sys.executable, CHECK, lock]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (f"PyTest=={metadata.version('pytest')}  # any spelling", ""),
        ("pytest==0.1", f"pytest is {metadata.version('pytest')}, needed is 0.1"),
        ("no-such-package==1.0", "no-such-package is missing, needed is 1.0"),
        ('no-such-package==1.0 ; python_version < "3.11"', ""),
        ('no-such-package==1.0 ; python_version >= "3.9" and sys_platform == "none"', ""),
        ('no-such-package==1.0 ; python_version > "3.9"', "no-such-package is missing"),
        ("pytest>=1", "lock line 2 is not name==version: pytest>=1"),
        ('a==1 ; extra == "x"', 'marker not understood: extra == "x"'),
    ],
)
def test_check_lock_names_what_differs(tmp_path, line, complaint):
    lock = tmp_path / "lock"
    lock.write_text(f"# a comment\n{line}\n")
    answer = check(lock)
    assert answer.returncode == bool(complaint), answer.stderr
    assert complaint in answer.stdout
    assert len(answer.stdout.splitlines()) == bool(complaint)


def test_check_lock_ignores_how_torch_was_built(tmp_path):
    lock = tmp_path / "lock"
    lock.write_text("torch==" + metadata.version("torch").split("+")[0])
    assert check(lock).returncode == 0


# --- setup.sh -----------------------------------------------------------------------------


def clean_environment(**extra: str) -> dict[str, str]:
    """Return this process's environment without an active venv, and without a network."""
    hidden = {"VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "FEYNTUNE_PYTHON"}
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    return {**kept, "PIP_NO_INDEX": "1", "PYTHON": sys.executable, **extra}


def start(checkout: Path, *arguments: str, **extra: str) -> subprocess.Popen:
    """Start the checkout's script in a process group of its own, from the folder above it."""
    return subprocess.Popen(
        [f"{checkout.name}/run.sh", *arguments],
        cwd=checkout.parent,
        env=clean_environment(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def outcome(process: subprocess.Popen) -> tuple[int, str]:
    """Wait for a started script; return its exit status and all it printed."""
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def new_checkout(folder: Path) -> Path:
    """Lay out a checkout with the real set-up and a lock that pins nothing."""
    (folder / "workflow").mkdir(parents=True)
    for name in ("setup.sh", "surroundings.sh", "check_lock.py"):
        shutil.copy(ROOT / "workflow" / name, folder / "workflow" / name)
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "commands.md", folder / "docs")
    (folder / "requirements.lock").write_text("# nothing\n")
    (folder / "pyproject.toml").write_text(STUB_PROJECT)
    (folder / "backend.py").write_text(STUB_BACKEND)
    (folder / "run.sh").write_text(STUB_SCRIPT)
    (folder / "run.sh").chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> dict[str, str]:
    """Settings of the user's: `cd` that prints, pip's target, other packages."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "other" / "pip").mkdir(parents=True)
    (folder / "other" / "pip" / "__init__.py").write_text("raise RuntimeError\n")
    shutil.copytree(folder / "other" / "pip", folder / "other" / "pip-0.1.dist-info")
    return {
        "CDPATH": f"{folder}:/",
        "BASH_FUNC_cd%%": '() { builtin cd "$@" && ls; }',
        "SHELLOPTS": "noglob",
        "PYTHONPATH": str(folder / "other"),
        "PYTHONOPTIMIZE": "2",
        **{"PIP_USER": "1", "PIP_TARGET": str(folder / "target"), "PIP_DRY_RUN": "1"},
    }


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, hostile):
    """A checkout whose set-up was killed half-way and then run twice at the same time, with the
    user's settings."""
    folder = new_checkout(tmp_path_factory.mktemp("set up") / "a checkout")
    killed = start(folder)
    while not (folder / ".venv" / "pyvenv.cfg").exists():
        assert killed.poll() is None, outcome(killed)
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert (folder / ".venv.unfinished").exists()
    (folder / ".venv" / "half-made").touch()

    started = [start(folder, **hostile), start(folder, **hostile)]
    together = [outcome(process) for process in started]
    ready = f"ready: {folder}/.venv/bin/python"
    assert [(status, said.splitlines()[-1]) for status, said in together] == [(0, ready)] * 2, (
        together
    )
    printed = "".join(output for _, output in together)
    assert printed.count("an earlier set-up did not finish") == 1
    assert printed.count("Setting up .venv") == 1
    return folder


def test_a_killed_set_up_is_built_anew(checkout):
    assert not (checkout / ".venv" / "half-made").exists()
    assert not (checkout / ".venv.unfinished").exists()
    assert (checkout / ".venv" / "bin" / "python").exists()


def test_a_whole_environment_is_used_at_once(checkout):
    status, output = outcome(start(checkout, PYTHON="/nowhere"))
    assert (status, output) == (0, f"ready: {checkout}/.venv/bin/python\n")


def test_an_active_environment_that_fits_is_used(checkout, tmp_path):
    other = new_checkout(tmp_path / "other")
    status, output = outcome(start(other, VIRTUAL_ENV=str(checkout / ".venv")))
    assert (status, output) == (0, f"ready: {checkout}/.venv/bin/python\n")


def test_an_active_environment_that_does_not_fit_is_named(checkout):
    status, output = outcome(start(checkout, CONDA_PREFIX="/nowhere"))
    said, ready = output.splitlines()
    assert status == 0
    assert said.startswith("The active environment /nowhere does not satisfy requirements.lock")
    assert ready == f"ready: {checkout}/.venv/bin/python"


def test_a_failed_installation_ends_with_one_line_and_is_not_used(checkout, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(checkout, copy, symlinks=True)
    (copy / "requirements.lock").write_text("no-such-package==1.0\n")
    for reason in (f"it was made for {checkout}", "an earlier set-up did not finish"):
        status, output = outcome(start(copy))
        assert status == 1
        assert reason in output
        assert "no-such-package" in output
        assert output.splitlines()[-1].startswith("error: setting up .venv failed; run again")


def test_an_environment_of_the_users_own_is_left_alone(tmp_path):
    folder = new_checkout(tmp_path / "own")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "precious").touch()
    status, output = outcome(start(folder))
    assert status == 1
    assert "was not made by" in output
    assert (folder / ".venv" / "precious").exists()


def test_without_a_python_the_error_is_one_line(tmp_path):
    folder = new_checkout(tmp_path / "bare")
    status, output = outcome(start(folder, PYTHON="/nowhere/python"))
    assert status == 1
    assert output.startswith("error: found no Python 3.11, 3.12 or 3.13")
    assert output.count("\n") == 1


def test_the_users_settings_do_not_get_into_the_set_up(checkout, hostile, tmp_path):
    """It was made anew with them, and then is used as it is, by the names of its packages."""
    copy = shutil.copytree(checkout, tmp_path / "copy", symlinks=True)
    (copy / ".venv" / "made-for-checkout").write_text(f"{copy}\n")
    (copy / "requirements.lock").write_text(f"pip=={installed_pip(copy)}\n")
    assert outcome(start(copy, **hostile)) == (0, f"ready: {copy}/.venv/bin/python\n")
    assert not Path(hostile["PIP_TARGET"]).exists()


def installed_pip(checkout: Path) -> str:
    (found,) = checkout.glob(".venv/lib/python*/site-packages/pip-*.dist-info")
    return found.name.removeprefix("pip-").removesuffix(".dist-info")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_no_set_up(tmp_path, option):
    folder = new_checkout(tmp_path / "new")
    status, output = outcome(start(folder, "--experiment", "demo", option))
    assert status == 0
    assert output.startswith("./run_all.sh [--experiment NAME]") and "feyntune publish" in output
    assert not list(folder.glob(".venv*"))


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_of_the_tests_starts_none(option):
    done = subprocess.run([ROOT / "run_tests.sh", option], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "[PYTEST OPTIONS]" in done.stdout and "===" not in done.stdout
