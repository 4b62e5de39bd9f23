"""The synthetic snapshot of `demo` and `smoke`, whose abstracts have a known likelihood.

- `corpus` - makes arXiv records: ids, dates, authors, categories, abstracts
- `language` - draws texts from a probabilistic grammar and computes their likelihood
- `grammar.yaml` - the tables of the grammar and of the records
"""
