"""Keep the values of a run as what later runs must give: the claims of certainty "reference".

    ./run_all.sh --experiment demo && python workflow/keep_expected.py --experiment demo

Rewrites ``expected`` of those claims in ``experiments/<name>.expected.yaml`` from the run's tables
and counts; everything else, tolerances too, stays as it was written by hand.
"""

from __future__ import annotations

import sys
from typing import Any

import click
import yaml

from feyntune import paths
from feyntune.analysis.report import claims, expectations
from feyntune.errors import UserError
from feyntune.experiment import load as experiments
from feyntune.experiment.files import writing
from feyntune.runs import stages
from feyntune.runs.freshness import Freshness


class _Dumper(yaml.SafeDumper):
    """Short lists in a line, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_list(self, data: list) -> yaml.Node:
        flow = all(isinstance(each, str) for each in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flow)


_Dumper.add_representer(list, _Dumper.represent_list)


@click.command()
@click.option("--experiment", "name", required=True, metavar="NAME")
def main(name: str) -> None:
    try:
        click.echo(f"{keep(name)} reference claims of {name} kept.")
    except UserError as error:
        click.echo(f"keep_expected: {error}", err=True)
        sys.exit(2)


def keep(name: str) -> int:
    """Rewrite the reference values of an experiment; return of how many claims."""
    experiment, place = experiments.load(name), paths.expectations(name)
    if not place.is_file():
        raise UserError(f"There is no experiments/{place.name}: write the claims first.")
    freshness = Freshness(experiment)
    for each in stages.plan(experiment):
        if each.stage.name != stages.REPORT and not freshness.fresh(each):
            raise UserError(f"{each} is {freshness.status(each).state}: run {name} first.")
    text = place.read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    references = [c for c in content["claims"] if c["certainty"] == expectations.REFERENCE]
    vouched = claims.fresh_files(experiment)
    for claim in references:
        claim["expected"] = claims.values(claim, experiment.paths, vouched)
    expectations.Expected.model_validate(content)
    comments = [line for line in text.splitlines() if line.startswith("#")]
    dumped = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=96)
    with writing(place) as partial:
        partial.write_text("\n".join([*comments, dumped]), encoding="utf-8")
    return len(references)


if __name__ == "__main__":
    main()
