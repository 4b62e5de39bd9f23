"""From a snapshot of arXiv's metadata to the ten training sets: notebook 01.

- `snapshot` - reads a snapshot, plain or compressed: its records, its bad lines, block by block
- `selection` - selects and cleans the abstracts of the five fields, on all cores, and counts
- `abstracts` - keeps the selected abstracts on disk, by row number; work in several processes
- `corpora` - samples, splits and mixes them to the datasets
- `overlap` - finds test abstracts with a copy in a training set
- `released_datasets` - reads and checks the authors' released datasets
- `fetch` - pinned downloads
- `stand_in` - the synthetic snapshot of `demo` and `smoke`
"""
