"""The motion tokenizer: a VQ-VAE, its training, and movement to motion tokens and back.

settings          all settings of this package, without torch
network           encoder and decoder
quantizers        vectors to codebook vectors, one class for each kind
train             makes the tokenizer artifact
training_task     the windows that it is trained on
reconstruction    how well held-out movements are reconstructed
motion_tokenizer  a trained tokenizer: encode and decode
tokens            the motion tokens of a cohort, an artifact of its own

Import from these modules. This file imports none of them, so that settings can be read without torch and Ray.
"""
