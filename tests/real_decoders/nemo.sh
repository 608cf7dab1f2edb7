#!/usr/bin/env bash
# NeMo's own batched CTC beam search with lmfusion's adapter, in an environment of its own. See
# decode_nemo.py.
exec "$(dirname "${BASH_SOURCE[0]}")/environment.sh" nemo "$@"
