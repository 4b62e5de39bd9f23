"""Models that others made, put where ours would be: makers of stages without a notebook.

- `released_adapters` - the authors' adapters and test set, linked
- `conversion` - a base model's GGUF file, converted to safetensors
"""
