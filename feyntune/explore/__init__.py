"""One abstract under several models: what they write, what surprises them. Serves `explore`.

- `session` - an experiment's models in memory, and the calls: text in, frames out
- `colours` - those frames as HTML: cards, and tokens coloured by surprise
- `templates` - their HTML and style
- `comparison` - models side by side: scores, paired differences, settings that differ
- `widgets` - a panel that makes the same calls
"""
