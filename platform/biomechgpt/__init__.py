"""Ask clinical questions about how a person moves."""
