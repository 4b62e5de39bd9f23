"""Adapters as repositories on the Hugging Face Hub: shown first, pushed only when told to."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from feyntune.errors import UserError
from feyntune.experiment.schema import Experiment
from feyntune.models import adapters, cards

FILES = (adapters.CONFIG, adapters.WEIGHTS)
README = "README.md"


@dataclass(frozen=True)
class Publication:
    """One adapter, and the repository that it would become."""

    variant: str
    repository: str
    folder: Path
    card: str

    def files(self) -> dict[str, int]:
        """What would be pushed, with its bytes."""
        sizes = {name: (self.folder / name).stat().st_size for name in FILES}
        return {README: len(self.card.encode()), **sizes}


def prepare(experiment: Experiment, variants: list[str], owner: str) -> list[Publication]:
    """What there is to publish, checked: the adapter is this experiment's, its log is there.

    Raises
    ------
    UserError
        If an adapter is missing, or is another base model's or of other LoRA settings.
    """
    return [_prepare(experiment, variant, owner) for variant in variants]


def _prepare(experiment: Experiment, variant: str, owner: str) -> Publication:
    paths, revision = experiment.paths, adapters.base_revision(experiment)
    folder = paths.adapter(variant)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing or not paths.log(variant).is_file():
        raise UserError(
            f"There is no adapter of {variant} to publish: run feyntune run 02_finetune "
            f"--experiment {experiment.name} --variant {variant} first."
        )
    adapters.check(experiment, variant)
    measured = paths.perplexity(variant)
    text = cards.card(
        experiment,
        variant,
        revision=revision,
        log=pd.read_parquet(paths.log(variant)),
        perplexity=pd.read_parquet(measured) if measured.is_file() else None,
    )
    name = f"feyntune-{experiment.name}-{variant}"
    return Publication(variant, f"{owner}/{name}", folder, text)


def show(publication: Publication) -> str:
    """What would be pushed, in lines."""
    lines = [f"{publication.variant} -> {publication.repository}"]
    lines += [f"  {size:>12,} bytes  {name}" for name, size in publication.files().items()]
    return "\n".join(lines)


def push(
    publications: list[Publication],
    *,
    private: bool,
    api: HfApi | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Make each repository, if it is not there, and upload its adapter in one commit.

    Uploading again what is there changes nothing. The token is the environment's or the one that
    ``hf auth login`` left.

    Raises
    ------
    UserError
        If the Hub refuses, or cannot be reached.
    """
    api = api or HfApi()
    for publication in publications:
        with tempfile.TemporaryDirectory() as folder:
            write(publication, Path(folder))
            try:
                api.create_repo(publication.repository, private=private, exist_ok=True)
                commit = api.upload_folder(
                    repo_id=publication.repository,
                    folder_path=folder,
                    allow_patterns=[README, *FILES],
                    commit_message=f"{publication.variant}, by feyntune publish",
                )
            except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
                reason = " ".join(str(error).split())[:300]
                raise UserError(
                    f"{publication.repository} could not be published ({reason}): a token that "
                    "may write is taken from HF_TOKEN, or from `hf auth login`."
                ) from None
        report(f"{publication.repository}: {commit.oid[:7]}")


def write(publication: Publication, folder: Path) -> None:
    """Write the repository's files; the adapter's own folder stays as its record knows it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(publication.folder / name, folder / name)
    (folder / README).write_text(publication.card, encoding="utf-8")
