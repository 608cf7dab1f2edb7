"""The main job on real input: a recogniser's n-best lists, rescored by a language model.

`python -m lmfusion demo` runs it. It needs Debian's flite and `pip install lmfusion[demo]`.
"""
