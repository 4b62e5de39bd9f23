"""Sources on the servers of `fake_hub`, and what a fetch of them does."""

import hashlib

import pytest
import yaml

from feyntune.data.fetch import download
from feyntune.errors import UserError

OLD, NEW = "a" * 40, "b" * 40
MODEL, DATASET, KAGGLE = "owner/model", "owner/scores", "owner/snapshot"
WEIGHTS = bytes(range(256)) * 400  # a hundred pieces of a download
FILES = {
    "README.md": b"# A model\n",
    "config.json": b"{}\n",
    "model.safetensors": WEIGHTS,
    "original/params.json": b'{"dim": 1}\n',
    "pytorch_model.bin": b"pickled",
    ".gitattributes": b"*.safetensors filter=lfs\n",
}
NAMED_BY = {"model": "base.model", "kaggle": "data.snapshot"}
CSV = b"paper,score\n" + b"0806.1218,7\n" * 5000
JSON = b'{"id": "0806.1218"}\n' * 5000
PLACES = {
    "base": f"{MODEL}/model.safetensors",
    "scores": f"datasets/{DATASET}/data/test-0.parquet",
    "snapshot": f"kaggle/datasets/{KAGGLE}/versions/193/snapshot.json",
    "ratings": "web/127.0.0.1/web/ratings.csv",
}
CARDS = {
    "s1-LoRA-all": (["LLMsForHepth/hep-th_primary"], "confirmed"),
    "s2-LoRA-all": ("LLMsForHepth/hep-ph_gr-qc_primary", "confirmed"),
    "s4-LoRA-all": (["LLMsForHepth/hep-th_85_gr-qc_15"], "contradicted"),
    "s5-LoRA-all": (["LLMsForHepth/hep-th_85_gr-qc_15", "LLMsForHepth/other"], "contradicted"),
    "s6-LoRA-all": (["hep-th_85_hep-ph_15"], "contradicted"),
    "s7-LoRA-all": (["generator"], "not said"),
    "s8-LoRA-all": ([], "not said"),
    "s9-LoRA-all": (None, "not said"),
}


def model(*files, revision="main", **more):
    return {"origin": "model", "id": MODEL, "revision": revision, "files": list(files), **more}


def dataset(*files):
    return {"origin": "dataset", "id": DATASET, "revision": "main", "files": list(files)}


def kaggle(*files, version=193):
    return {"origin": "kaggle", "id": KAGGLE, "version": version, "files": list(files)}


def web(fake, content=CSV, **more):
    digest = hashlib.sha256(content).hexdigest()
    known = {"url": f"{fake.url}/web/ratings.csv", "sha256": digest, "bytes": len(content)}
    return {"origin": "web", **known, **more}


def everything(fake):
    return {
        "base": model("*.json", "*.safetensors"),
        "scores": dataset("data/*.parquet"),
        "snapshot": kaggle("*.json"),
        "ratings": web(fake),
    }


def fetch(made, **options):
    """Fetch all that an experiment needs; what was reported."""
    lines = []
    download.fetch(made, made.outside, report=lines.append, **options)
    return lines


def seen(made, name):
    """The files of a source as a stage sees them."""
    folder = made.paths.fetched(name)
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def written(made):
    return yaml.safe_load(made.paths.lockfile.read_text())["sources"]


def refused(made, **options):
    """The one line that a fetch ends with."""
    with pytest.raises(UserError) as error:
        fetch(made, **options)
    message = str(error.value)
    assert "\n" not in message
    assert "hf_" not in message
    return message


def as_mirror(fake, folder):
    """What the servers hold, as a folder."""
    files = {f"{MODEL}/{name}": content for name, content in FILES.items()}
    files |= {f"datasets/{DATASET}/data/test-0.parquet": WEIGHTS[:5000]}
    files |= {f"kaggle/datasets/{KAGGLE}/versions/193/snapshot.json": JSON}
    files |= {"web/127.0.0.1/web/ratings.csv": CSV}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
