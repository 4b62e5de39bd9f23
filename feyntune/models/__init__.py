"""The base model, its adapters, and the likelihood of a text (notebooks 02 to 04, `explore`).

- `base` - tokenizer, base model (quantised or not), device
- `architecture` - layers, target modules and context, from a configuration alone
- `suitability` - whether a base model can be used as an experiment asks
- `likelihood` - negative log-likelihood of every token, batches of like length
- `adapters` - saving, checking, attaching and detaching LoRA adapters
- `publishing` - adapters as Hub repositories with model cards (`feyntune publish`)
- `imported` - models that others made, put where ours would be
- `tiny_llama` - the stand-in base model and its tokenizer, trained here
"""
