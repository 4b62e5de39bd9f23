"""The tables, a frame each, and their files. Serves notebook 07.

Most functions take ``wanted`` (the models that have a row, in order) and ``absent`` (the note on
one without results, whose row is otherwise empty).

- `scores` - perplexity, SemScore, commercial models, similarity, examples of completions
- `nearness` - how near completions come to the authors' texts
- `by_year` - perplexity by year of submission, and gains on both sides of base's cut-off
- `setup` - what was done: datasets, overlap with the test set, settings, time and memory
- `writing` - CSV, Markdown and LaTeX files
- `typesetting` - parts of a wide table, and LaTeX
- `captions.yaml` - titles, notes, decimals and intervals of all tables; captions of all figures
"""
