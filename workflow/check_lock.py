"""Does this interpreter's environment hold what ``requirements.lock`` pins?

``python workflow/check_lock.py [LOCK]`` prints one line per package that is missing or
differs and exits 1, or prints nothing and exits 0. ``--python`` asks only whether the
interpreter can carry the environment.

``setup.sh`` asks this before anything is installed and at the start of every run, so it
uses the standard library alone, takes a fraction of a second, and can be read by Pythons
that are too old for the project (they get an answer, not a traceback).
"""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

# The same range as `requires-python` in pyproject.toml (held by tests/test_environment.py).
PYTHON_FROM = (3, 11)
PYTHON_BELOW = (3, 14)

PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?:\s*;\s*(?P<marker>.+))?")
CONDITION = re.compile(r"(?P<key>\w+)\s*(?P<op>==|!=|<=|>=|<|>)\s*['\"](?P<value>[^'\"]*)['\"]")

FACTS = {
    "python_version": "{}.{}".format(*sys.version_info[:2]),
    "sys_platform": sys.platform,
    "platform_machine": platform.machine(),
}


def python_problem() -> str | None:
    """Say why this interpreter cannot carry the environment; None if it can."""
    if not PYTHON_FROM <= sys.version_info[:2] < PYTHON_BELOW:
        wanted = "{}.{} or newer, below {}.{}".format(*PYTHON_FROM, *PYTHON_BELOW)
        return f"Python is {FACTS['python_version']}, needed is {wanted}"
    return None


def condition_holds(condition: str) -> bool:
    """Decide one comparison such as ``python_version < "3.12"``."""
    match = CONDITION.fullmatch(condition.strip())
    if match is None or match["key"] not in FACTS:
        raise ValueError(f"marker not understood: {condition.strip()}")
    found, wanted = FACTS[match["key"]], match["value"]
    if match["op"] in ("==", "!="):
        return (found == wanted) == (match["op"] == "==")
    if match["key"] != "python_version":
        raise ValueError(f"marker not understood: {condition.strip()}")
    a, b = (tuple(int(part) for part in text.split(".")) for text in (found, wanted))
    return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[match["op"]]


def read_lock(path: Path) -> dict[str, str]:
    """Return the pins that apply on this machine, as ``{name: version}``.

    Raises
    ------
    ValueError
        For a line that is no exact pin, or whose marker is more than comparisons joined
        by ``and``: a check that skipped it would call a wrong environment right.
    """
    pins = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        match = PIN.fullmatch(text)
        if match is None:
            raise ValueError(f"{path.name} line {number} is not name==version: {text}")
        marker = match["marker"]
        if marker is None or all(condition_holds(part) for part in marker.split(" and ")):
            pins[match["name"]] = match["version"]
    return pins


def problems(lock: Path) -> list[str]:
    """Return one line per package that is missing or has another version."""
    from importlib import metadata  # not at the top: Python 3.7 has no such module

    lines = []
    for name, wanted in read_lock(lock).items():
        try:
            # A local version ("2.13.0+cpu") says how a release was built, not which it is.
            # A package whose metadata file is gone has no version at all.
            found = (metadata.version(name) or "damaged").split("+", 1)[0]
        except metadata.PackageNotFoundError:
            lines.append(f"{name} is missing, needed is {wanted}")
            continue
        if found != wanted:
            lines.append(f"{name} is {found}, needed is {wanted}")
    return lines


def main(arguments: list[str]) -> int:
    """Print what is wrong, one line each; return the exit status."""
    wrong = python_problem()
    if wrong is None and arguments != ["--python"]:
        default = Path(__file__).resolve().parent.parent / "requirements.lock"
        try:
            found = problems(Path(arguments[0]) if arguments else default)
        except (OSError, ValueError) as error:
            found = [str(error)]
        wrong = "\n".join(found)
    if wrong:
        print(wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
