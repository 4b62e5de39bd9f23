"""The stand-in: a synthetic arXiv snapshot and a tiny Llama, for runs without network or GPU."""
