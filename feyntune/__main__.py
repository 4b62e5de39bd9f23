"""``python -m feyntune``: the same command as ``feyntune``."""

from feyntune.cli import main

main()
