"""Asking commercial and other OpenAI-compatible endpoints, for notebook 05.

- `chat` - what to ask each provider, asking all of them, and what came of it
- `asking` - one provider: speed, retries, when to stop, its key
- `replies` - what a reply means: finish reasons, contents, errors and usages as tables
- `answers` - the files that record every answer
- `costs` - expected cost, and the limits
- `serving` - the experiment's own base model behind a real endpoint
"""
