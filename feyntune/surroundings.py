"""The surroundings of everything that is started: ``workflow/surroundings.sh`` says what passes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache

from feyntune.errors import UserError
from feyntune.paths import WORKFLOW

SCRIPT = WORKFLOW / "surroundings.sh"
# What bash itself would act on before the script's first line.
_OF_BASH = ("BASH_ENV", "ENV", "SHELLOPTS", "BASHOPTS")


def ours() -> dict[str, str]:
    """The environment of this process without what a run does not depend on, and completed.

    Raises
    ------
    UserError
        If there is no bash.
    """
    given = {name: value for name, value in os.environ.items() if name not in _OF_BASH}
    path = given.get("PATH", "")
    bash = shutil.which("bash", path=os.pathsep.join([path, os.defpath]))
    if bash is None:
        raise UserError("Found no bash: install it.")
    command = [bash, str(SCRIPT), "env", "-0"]
    done = subprocess.run(command, env=given, stdout=subprocess.PIPE)
    if done.returncode:
        raise SystemExit(done.returncode)  # the script has said why
    entries = os.fsdecode(done.stdout).split("\0")[:-1]
    found = dict(entry.split("=", 1) for entry in entries)
    found = {name: value for name, value in found.items() if name.isidentifier() and name != "_"}
    return found | {"PATH": path}


def set_aside() -> None:
    """Let this process, and what it starts, have no other environment than :func:`ours`."""
    found = ours()
    os.environ.clear()
    os.environ.update(found)


@cache
def enter() -> None:
    """Begin a command: set aside what does not pass, and begin anew if Python has read of it."""
    before = dict(os.environ)
    try:
        set_aside()
    except UserError as error:
        sys.exit(f"feyntune: {error}")
    read = {name: value for name, value in before.items() if name.startswith("PYTHON")}
    if any(os.environ.get(name) != value for name, value in read.items()):
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
