"""Experts rate completions: sheets out, scores in, and what they say, for notebook 06.

- `sheets` - blinded rating sheets and their key; the page is made from ``sheet_page/``
- `mathml` - TeX in abstracts as HTML
- `returned` - ratings from files, or from returned sheets and their key
- `means` - systems, categories, and mean scores
- `agreement` - paired differences, and how far the raters agree
- `predictors` - whether perplexity and SemScore predict the experts
"""
