"""One figure a module: frames in, a matplotlib figure out. Serves notebook 07.

Beside its frames a figure function takes ``models`` (the base model and the variants, with what
groups them), ``label`` (what is a stand-in, or ``None``: the picture says so itself, as it may
travel without its caption) and ``absent`` (what is said of a model without results, which is never
drawn). Colours, markers, pairs and order follow from ``models``.

- `learning_curves` - figure 3.1: training loss at every step
- `validation_perplexity` - figure 3.2: validation perplexity during training
- `bootstrap_perplexity` - figure 3.3: perplexity of every model on the s1 test set
- `completion_entropy` - figure 3.4: entropy of completions against their length
- `perplexity_by_year` - ours: perplexity and gains by year of submission
- `rating_scores` - experts' scores of every system, and what predicts them
- `style` - colours, panels, legends, broken axes, and files of the same bytes on every run
"""
