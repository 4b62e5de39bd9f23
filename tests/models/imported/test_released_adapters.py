"""`released` from end to end: adapters and a test set from a mirror, evaluated by the real code.

The base model is the stand-in under Llama's name, its adapter one that was trained on it: the
scores must be those that they have where they were made.
"""

import json
import os
import shutil

import mirror
import own_experiments
import pandas as pd
import pytest
import tiny

from feyntune.data.fetch import download
from feyntune.errors import UserError
from feyntune.evaluation import perplexity
from feyntune.experiment import load
from feyntune.experiment.recipes import HUB_OWNER, released_name
from feyntune.models import adapters
from feyntune.models.imported import released_adapters
from feyntune.pipeline import notebooks, runner
from feyntune.runs.freshness import Freshness
from feyntune.runs.stages import ADOPTED, CURATION, FINETUNE, plan

BASE = "meta-llama/Meta-Llama-3.1-8B"
SETTINGS = {
    "variants": [tiny.VARIANT],
    "perplexity.dtype": "float32",
    "completions.dtype": "float32",
    "completions.embedder": "base",
    "completions.abstracts": 4,
    "completions.max_new_tokens": 8,
    "human_evaluation.shared_papers": 1,
    "human_evaluation.own_papers": 1,
    # One thread for all, as they share a kernel, and as eight for tiny models only wait.
    **dict.fromkeys(("resources.perplexity.cores", "resources.completions.cores"), 1),
    **dict.fromkeys(("resources.data_curation.cores", "resources.other.cores"), 1),
}


@pytest.fixture(scope="module")
def world(stand_in, tmp_path_factory):
    """The mirror, and the output folder of a whole run."""
    folder, output = tmp_path_factory.mktemp("mirror"), tmp_path_factory.mktemp("output")
    made = stand_in.experiment.paths
    shutil.copytree(made.base, folder / BASE)
    repository = folder / HUB_OWNER / released_name(tiny.VARIANT)
    shutil.copytree(made.adapter(tiny.VARIANT), repository)
    config = json.loads((repository / adapters.CONFIG).read_text())
    config["base_model_name_or_path"] = BASE
    (repository / adapters.CONFIG).write_text(json.dumps(config))
    (repository / "README.md").write_text("---\ndatasets:\n- LLMsForHepth/hep-th_primary\n---\n")
    data = folder / "datasets" / HUB_OWNER / "hep-th_primary" / mirror.PARQUET
    data.parent.mkdir(parents=True)
    mirror.metadata(12, 3).to_parquet(data, index=False)
    return folder, output


@pytest.fixture(scope="module")
def kernels(world):
    """A whole run, as the engine orders it, in one kernel; returns how often one was started."""
    folder, output = world
    started, before = [], dict(os.environ)
    own_experiments.changed(output, "released", SETTINGS)
    os.environ["FEYNTUNE_OUTPUT"] = str(output)
    kernel, start = notebooks.Kernel(), notebooks._manager
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(notebooks, "Kernel", lambda: kernel)
            patch.setattr(notebooks, "_manager", lambda folder: started.append(1) or start(folder))
            patch.setattr(kernel, "end", lambda: None)  # only after the last stage
            experiment = load.load("released")
            download.fetch(experiment, experiment.outside, mirror=folder)
            done = {did for _, did in runner.run_together(plan(experiment))}
            # Two of the invented adapters are equal: one takes the other's results over.
            assert done <= {runner.DONE, runner.TAKEN_OVER}
    finally:
        kernel.end()
        os.environ.clear()
        os.environ.update(before)
    return len(started)


@pytest.fixture
def released(world, kernels, monkeypatch):
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(world[1]))
    return load.load("released")


def test_nothing_is_trained():
    stages = {each.stage.name for each in plan(load.load("released"))}
    assert ADOPTED in stages and not stages & {CURATION, FINETUNE}
    assert len(load.load("released").outside) == 20 + len(("base", "embedder", "test set"))


def test_every_stage_is_fresh_after_it(released):
    freshness = Freshness(released)
    assert all(freshness.fresh(each) for each in plan(released))


def test_the_scores_are_those_of_the_adapter_where_it_was_made(released, stand_in):
    test = pd.read_parquet(released.paths.split("s1", "test"))
    assert list(test.columns) == ["id", "title", "categories", "primary", "year", "abstract"]
    found = {}
    for name in released.models:
        found[name] = pd.read_parquet(released.paths.perplexity(name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEYNTUNE_OUTPUT", str(stand_in.output))
        tokenizer = stand_in.tokenizer
        model = {
            name: adapters.load_model(stand_in.experiment, name, dtype="float32") for name in found
        }
    for name, scores in found.items():
        expected = perplexity.score(
            model[name], tokenizer, test["id"], test["abstract"], tokens_per_batch=16384
        )
        pd.testing.assert_frame_equal(scores, expected)
    assert (found["base"]["nll"] - found[tiny.VARIANT]["nll"]).abs().min() > 0.1


def test_both_models_ran_in_one_kernel_and_are_in_the_table(released, kernels):
    assert kernels == 1
    table = released.paths.table("perplexity").with_suffix(".csv")
    assert set(pd.read_csv(table)["model"]) >= set(released.models)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"r": 16}, "has the rank 16; the experiment has 8"),
        ({"base_model_name_or_path": "meta-llama/Llama-2-7b"}, "has the base model Llama-2-7b"),
        ({"target_modules": ["q_proj"]}, "has the target modules q_proj"),
        (None, "There is no adapter_model.safetensors"),
    ],
)
def test_an_adapter_of_another_making_stops_before_any_model_is_loaded(
    released, tmp_path, monkeypatch, change, said
):
    folder = tmp_path / "results" / "released" / "fetched"
    shutil.copytree(released.paths.fetched("test-set"), folder / "test-set")
    place = shutil.copytree(released.paths.fetched(tiny.VARIANT), folder / tiny.VARIANT)
    if change is None:
        (place / adapters.WEIGHTS).unlink()
    else:
        config = json.loads((place / adapters.CONFIG).read_text()) | change
        (place / adapters.CONFIG).write_text(json.dumps(config))
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    with pytest.raises(UserError, match=said):
        released_adapters.make(released)


def test_its_stage_is_data_like_the_others(released):
    (adopted,) = [each for each in plan(released) if each.stage.name == ADOPTED]
    assert all(path.exists() for path in adopted.writes.values())
