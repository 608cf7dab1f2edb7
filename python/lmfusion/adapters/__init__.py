"""One module a decoder; each imports its decoder's package only when it is imported itself.

pyctcdecode, flashlight (also torchaudio), espnet, icefall, nemo, nbest; docs/adapters.md has five
lines on each.
"""
