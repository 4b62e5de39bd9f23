"""``python -m feyntune``: the same command as ``feyntune``."""

from feyntune import surroundings

surroundings.enter()  # before the libraries, whose versions PYTHONPATH may have changed

from feyntune.cli import main  # noqa: E402

main()
