"""What README points to is there."""

from __future__ import annotations

import re
import subprocess

from feyntune.paths import REPOSITORY


def test_every_relative_link_is_a_tracked_file():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    listed = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert len(links) > 15
    assert set(links) - set(listed.stdout.splitlines()) == set()
