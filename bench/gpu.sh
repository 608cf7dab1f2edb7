#!/usr/bin/env bash
# Builds, tests and benchmarks everything on a machine with a GPU, in under 9 minutes and without a
# network. It needs there: torch 2.11 (a CUDA build), transformers, nvcc 13.0, g++, cmake, ninja,
# pybind11 and pytest.
#
#   bench/gpu.sh pack        on a Debian 12 or Ubuntu machine with a network: puts the Debian
#                            packages that the other one may lack (headers and libraries of PCRE2,
#                            utf8proc, SentencePiece, nlohmann-json, googletest; pkg-config) into
#                            .gpu-deps/, about 10 MB, which travels with the working tree
#   bench/gpu.sh             on the GPU machine, in the root of the working tree
#
# Environment: PYTHON (python3), OUT (folder for logs, default out/), ARCHITECTURE (the GPU's own by
# default), MODELS, REQUESTS (a file of recorded calls), LIMIT (seconds in all, 530).
set -uo pipefail
cd "$(dirname "$0")/.."
deps=$PWD/.gpu-deps
packages=(libpcre2-dev libpcre2-8-0 libutf8proc-dev libutf8proc2 libsentencepiece-dev
          libsentencepiece0 nlohmann-json3-dev libgtest-dev pkgconf pkgconf-bin libpkgconf3)

if [[ ${1:-} == pack ]]; then
  set -e
  mkdir -p "$deps"
  (cd "$deps" && apt-get download -q "${packages[@]}" && for deb in ./*.deb; do
     dpkg-deb -x "$deb" .
   done && rm -f ./*.deb)
  rm -rf "$deps/usr/share/doc" "$deps/usr/src" "$deps"/usr/lib/*/libsentencepiece*.a
  du -sh "$deps"
  exit
fi

python=${PYTHON:-python3}
out=${OUT:-$PWD/out}
limit=${LIMIT:-530}
mkdir -p "$out"
began=$SECONDS
left() { echo $((limit - SECONDS + began)); }
say() { echo "== $* ($((SECONDS - began)) s)"; }
failed=0
# step SECONDS_AT_MOST COMMAND...: stops early enough that the rest still gets its turn.
step() {
  local most=$1
  shift
  (( most < $(left) )) || most=$(left)
  (( most > 5 )) || { say "no time left for: $*"; failed=1; return 1; }
  timeout "$most" "$@" || { say "failed ($?): $*"; failed=1; return 1; }
}

machine=$(gcc -dumpmachine)
if ! pkg-config --exists libpcre2-8 libutf8proc 2>/dev/null && [[ -d $deps ]]; then
  say "packages from $deps"
  libraries=$deps/usr/lib/x86_64-linux-gnu
  export PATH=$PATH:$deps/usr/bin
  export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export PKG_CONFIG=$deps/usr/bin/pkgconf PKG_CONFIG_LIBDIR=$libraries/pkgconfig
  export PKG_CONFIG_SYSROOT_DIR=$deps PKG_CONFIG_ALLOW_SYSTEM_LIBS=1
  export PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1
  prefix=(-DCMAKE_PREFIX_PATH="$deps/usr" -DPKG_CONFIG_EXECUTABLE="$PKG_CONFIG"
          -DCMAKE_BUILD_RPATH="$libraries")
else
  prefix=()
fi
sentencepiece=ON
pkg-config --exists sentencepiece 2>/dev/null || ${PKG_CONFIG:-false} --exists sentencepiece ||
  { sentencepiece=OFF; say "without SentencePiece: its library is not here"; }
tests=OFF
[[ -d $deps/usr/include/gtest || -d /usr/include/gtest ]] && tests=ON

nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
architecture=${ARCHITECTURE:-$($python -c \
  'import torch; a = torch.cuda.get_device_capability(); print(f"{a[0]}{a[1]}-real")')} || exit 1
say "configure for $architecture on $machine"
step 60 cmake -S . -B build-gpu -G Ninja -DCMAKE_BUILD_TYPE=Release -DLMFUSION_CUDA=ON \
  -DLMFUSION_CUDA_ARCHITECTURES="$architecture" -DLMFUSION_BUILD_PYTHON=ON \
  -DLMFUSION_BUILD_BENCH=OFF -DLMFUSION_BUILD_TESTS=$tests -DLMFUSION_SENTENCEPIECE=$sentencepiece \
  -DPython3_EXECUTABLE="$(command -v "$python")" "${prefix[@]}" > "$out/configure.log" 2>&1 ||
  { tail -20 "$out/configure.log"; exit 1; }
say "build"
step 240 cmake --build build-gpu > "$out/build.log" 2>&1 ||
  { grep -E "error|FAILED" "$out/build.log" | head -20; exit 1; }
export PYTHONPATH=$PWD/python:$PWD/tests/python
if [[ $tests == ON ]]; then
  say "C++ tests"
  step 60 ctest --test-dir build-gpu --output-on-failure > "$out/ctest.log" 2>&1
  tail -4 "$out/ctest.log"
fi
say "tests on the device"
step 120 "$python" -m pytest -q -rs -p no:cacheprovider tests/python/test_device.py \
  tests/python/test_memory_plan.py > "$out/pytest.log" 2>&1
tail -15 "$out/pytest.log"
for model in ${MODELS:-llama-1b llama-3b gemma-4b}; do
  (( $(left) > 60 )) || { say "no time left for $model"; continue; }
  say "benchmark $model"
  step 200 "$python" bench/gpu.py --device cuda --models "$model" --seconds 8 \
    ${REQUESTS:+--requests "$REQUESTS"} 2>> "$out/benchmark.log" | tee -a "$out/benchmark.md"
done
say "done, logs in $out"
exit $failed
