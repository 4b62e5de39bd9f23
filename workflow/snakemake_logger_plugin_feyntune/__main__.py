"""Snakemake's command without the line in which it names its profile, which it prints itself."""

from __future__ import annotations

from snakemake import cli


def _print(*said, **options) -> None:
    if not str(said[0]).startswith("Using profile"):
        print(*said, **options)


if __name__ == "__main__":
    cli.print = _print
    cli.main()
