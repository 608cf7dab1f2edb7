"""Random calls of a scorer, and what plain Hugging Face says of the same texts.

A `World` (worlds.py) is a tiny model of some architecture with some tokenizer, all by its seed.
A `Case` (cases.py) is plain data: a scorer's settings, texts, and the calls to make, one after
another. Hypothesis draws cases, and makes those that fail smaller. The oracle (expected.py) is the
original model, run once on every text that no other text begins with, and the original tokenizer;
the rules of joining, casing and cutting are written down once more there, from docs/boundaries.md
and docs/casing.md. A `Machine` (machine.py) makes the calls (calls.py, searches.py, cache_calls.py)
and compares.
"""
