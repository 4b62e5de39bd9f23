"""Pinned downloads: what an experiment needs from outside, checked by hash (`feyntune fetch`).

- `download` - brings every source, or names what is missing or differs
- `pins` - the lock with commits, sizes and hashes; which files of a source are wanted
- `origins` - the Hugging Face Hub, Kaggle, the web; their errors in one line each
- `wheels` - a model file inside a wheel of the package index
- `listed` - abstracts listed by id
- `revisions` - which of them changed since
- `arxiv_api` - arXiv's API, through the package `arxiv`
- `mirror` - a local folder instead of the network
"""
