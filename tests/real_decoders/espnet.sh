#!/usr/bin/env bash
# ESPnet's own beam searches with lmfusion's adapter, in an environment of its own. See decode_espnet.py.
exec "$(dirname "${BASH_SOURCE[0]}")/environment.sh" espnet "$@"
