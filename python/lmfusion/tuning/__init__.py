"""Weights and text form of n-best rescoring: found on lists with references, with how sure it is.

docs/tuning.md says what is searched and what the figures mean.
"""
