"""FeynTune: the reproducible notebook artifact of arXiv:2508.03716.

The notebooks in ``notebooks/`` tell the story; this thin package holds what two
notebooks share or what a test must reach. See ``README.md`` for the two commands.
"""

import logging

# bitsandbytes says at its import that an optional kernel package is not installed.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

__version__ = "0.1.0"
