"""Language: the base and its vocabulary, fine-tuning, answering."""
