"""Language: the base and its vocabulary, fine-tuning, answering."""

import logging

# It tells of an optional kernel that it did not find, each time it is imported.
logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
