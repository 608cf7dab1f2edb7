#!/usr/bin/env bash
# sherpa-onnx's graph search with lmfusion's lattices, in an environment of its own. See
# decode_sherpa_onnx.py.
exec "$(dirname "${BASH_SOURCE[0]}")/environment.sh" sherpa_onnx "$@"
