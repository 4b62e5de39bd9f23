"""What a model is measured by, and the same for commercial models.

Notebooks: 03 (perplexity), 04 (completions) and 05 (commercial models).

- `perplexity` - negative log-likelihood of whole abstracts
- `completions` - prompts, their completions, and resuming a killed run
- `generation` - batched sampling, a random generator per sequence
- `metrics` - the table of metrics that each completion is measured by
- `semscore` - embeddings for SemScore, pairwise cosine similarity of abstracts
- `statistics` - bootstrap, paired comparison, summaries
- `grouping` - datasets, flavours, pairs and repeats among the models of an experiment
- `commercial` - asking commercial and other OpenAI-compatible endpoints
"""
