"""FeynTune: the reproducible notebook artifact of arXiv:2508.03716.

The notebooks in ``notebooks/`` tell the story; this thin package holds what two
notebooks share or what a test must reach. See ``README.md`` for the two commands.
"""

import logging
import warnings

# Notebooks show what is said. bitsandbytes says at its import that an optional kernel package is
# not installed; PEFT and TRL use names that transformers will drop.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")

__version__ = "0.1.0"
