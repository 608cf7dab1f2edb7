"""Vosk with `SetMaxAlternatives`: {"alternatives": [{"text", "confidence"}, ...]}.

Its "confidence" is no probability: it is the negated cost of a path of the lattice, acoustic and
graph together, in nats.
"""

from __future__ import annotations

from lmfusion.nbest.hypothesis import Form, has, value_of

ALTERNATIVE = Form("Vosk alternative",
                   lambda value: has(value, "text", "confidence") and not has(value, "score"),
                   lambda value: value_of(value, "text"),
                   lambda value, _: value_of(value, "confidence"))
