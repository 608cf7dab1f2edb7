"""Word lattices: read, given n-gram scores, and searched for their best texts, exactly.

    lattice = lmfusion.lattice.read("utterance.slf")
    found = scorer.best_path(lattice, weight=0.5, ngram_weight=10.0)
    found.paths[0].text, found.proven

One module a format says where words and scores stand; docs/lattices.md has the table.
"""

from __future__ import annotations

from lmfusion.errors import LatticeError
from lmfusion.lattice.best_path import BestPaths, Path
from lmfusion.lattice.confusion import confusion_network
from lmfusion.lattice.labels import word_of
from lmfusion.lattice.lattice import Arc, Lattice
from lmfusion.lattice.ngram import with_ngram
from lmfusion.lattice.reading import read, read_all

__all__ = ["Arc", "BestPaths", "Lattice", "LatticeError", "Path", "confusion_network", "read",
           "read_all", "with_ngram", "word_of"]
