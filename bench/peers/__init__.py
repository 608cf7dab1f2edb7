"""The systems that bench/peers.py compares, one file each; bench/README.md says how."""
