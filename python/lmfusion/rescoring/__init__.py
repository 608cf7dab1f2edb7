"""Rescoring of n-best files that may be larger than memory, in shards, resumable after a kill."""
