"""Language models: families, motion pre-training, fine-tuning, export. Knows nothing about scoring."""

import logging

# bitsandbytes warns on every import that an optional kernel is missing.
logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
