"""Training one LoRA adapter with TRL's SFTTrainer (notebook 02).

- `arguments` - tokenised abstracts, what belongs to the machine, and callbacks that look on
- `trainer` - SFTTrainer with the released steps on any memory, its evaluations and checkpoints
- `batches` - a step's batch in pieces that fit into memory
- `attention` - attention over packed abstracts without padding, on a GPU
- `memory` - which form of the base and how many abstracts at a time fit into memory
- `preflight` - checks before the training starts, and how long it will take
- `checkpoints` - from which checkpoint to resume; those that do not fit are set aside
- `log` - the training log as a table
"""
