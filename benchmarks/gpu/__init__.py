"""What `gpu_8b.py` measures: training, evaluation and generation at the size of Llama-3.1-8B."""
