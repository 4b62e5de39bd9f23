"""Running it: one stage, or all of them on this machine or a cluster.

- `runner` - runs stages: fresh, taken over, or made; accepts a change of code
- `notebooks` - executes notebooks with papermill, in kernels of this checkout
- `engine` - all stages of an experiment, ordered by Snakemake
- `summary` - what a run says at its start and end
- `slurm` - SLURM's queue: what a user gets wrong about it, jobs left over
- `gpus` - GPUs that stages reserve
- `resolved` - an experiment with all its settings, what differs and where it was set
- `leftovers` - what `feyntune clean` may remove
"""
