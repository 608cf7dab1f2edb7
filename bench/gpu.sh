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
# default), MODELS, REQUESTS (a file of recorded calls), LIMIT (seconds in all, 530), DEVICE (cuda;
# "emulated" goes through the whole script on a machine without a GPU, with a tiny model), JOBS (of
# the build; all cores).
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
# step SECONDS_AT_MOST COMMAND...: stops early enough that the rest still gets its turn. The seconds
# are those of a LIMIT of 530.
step() {
  local most=$(($1 * limit / 530))
  shift
  (( most < $(left) )) || most=$(left)
  (( most > 5 )) || { say "no time left for: $*"; failed=1; return 1; }
  timeout "$most" "$@" || { say "failed ($?): $*"; failed=1; return 1; }
}

device=${DEVICE:-cuda}
machine=$(gcc -dumpmachine)
for tool in cmake ninja gcc "$python"; do
  command -v "$tool" > /dev/null || { say "$tool is missing"; exit 1; }
done
for module in torch transformers pybind11 pytest; do
  "$python" -c "import $module" || { say "the Python package $module is missing"; exit 1; }
done

# What the compiler finds without help.
has_header() { echo "#include <$1>" | gcc -x c++ -E - > /dev/null 2>&1; }
prefix=()
if ! { pkg-config --exists libpcre2-8 libutf8proc && has_header nlohmann/json.hpp; } 2> /dev/null
then
  [[ -d $deps ]] || {
    say "PCRE2, utf8proc, nlohmann-json or pkg-config are missing, and $deps with them; run" \
        "'bench/gpu.sh pack' on a machine with a network and copy that folder here"
    exit 1
  }
  say "packages from $deps"
  libraries=$deps/usr/lib/$(gcc -print-multiarch 2> /dev/null)
  [[ -e $libraries/libpcre2-8.so ]] || libraries=$deps/usr/lib/x86_64-linux-gnu
  export PATH=$PATH:$deps/usr/bin
  export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export PKG_CONFIG=$deps/usr/bin/pkgconf PKG_CONFIG_LIBDIR=$libraries/pkgconfig
  export PKG_CONFIG_SYSROOT_DIR=$deps PKG_CONFIG_ALLOW_SYSTEM_LIBS=1
  export PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1
  prefix=(-DCMAKE_PREFIX_PATH="$deps/usr" -DPKG_CONFIG_EXECUTABLE="$PKG_CONFIG"
          -DCMAKE_BUILD_RPATH="$libraries")
fi
sentencepiece=ON
"${PKG_CONFIG:-pkg-config}" --exists sentencepiece ||
  { sentencepiece=OFF; say "without SentencePiece: its library is not here"; }
tests=OFF
if has_header gtest/gtest.h || [[ -d $deps/usr/include/gtest && ${#prefix[@]} -gt 0 ]]; then
  tests=ON
else
  say "without the C++ tests: googletest is not here"
fi

if [[ $device == cuda ]]; then
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
  architecture=${ARCHITECTURE:-$("$python" -c \
    'import torch; a = torch.cuda.get_device_capability(); print(f"{a[0]}{a[1]}-real")')} || exit 1
  models=(${MODELS:-llama-1b llama-3b gemma-4b})
  selection="not emulated and not cpu and not default_model"
  shape=(--seconds 8)
else
  architecture=${ARCHITECTURE:-90-real}
  models=(${MODELS:-tiny tiny-gemma})
  selection="emulated and not default_model"
  shape=(--seconds 1 --beams 6 --steps 3 --words 3 6)
fi
say "configure for $architecture on $machine"
step 60 cmake -S . -B build-gpu -G Ninja -DCMAKE_BUILD_TYPE=Release -DLMFUSION_CUDA=ON \
  -DLMFUSION_CUDA_ARCHITECTURES="$architecture" -DLMFUSION_BUILD_PYTHON=ON \
  -DLMFUSION_BUILD_BENCH=OFF -DLMFUSION_BUILD_TESTS=$tests \
  -DLMFUSION_SENTENCEPIECE=$sentencepiece \
  -DPython3_EXECUTABLE="$(command -v "$python")" "${prefix[@]}" > "$out/configure.log" 2>&1 ||
  { tail -20 "$out/configure.log"; exit 1; }
say "build"
step 240 cmake --build build-gpu ${JOBS:+-j "$JOBS"} > "$out/build.log" 2>&1 ||
  { grep -E "error|FAILED" "$out/build.log" | head -20; exit 1; }
export PYTHONPATH=$PWD/python:$PWD/tests/python
if [[ $tests == ON ]]; then
  say "C++ tests"
  step 90 ctest --test-dir build-gpu -j 8 --output-on-failure > "$out/ctest.log" 2>&1
  tail -4 "$out/ctest.log"
fi
say "tests on the device"
step 150 "$python" -m pytest -q -rs -p no:cacheprovider -k "$selection" \
  tests/python/test_device.py tests/python/test_scorer.py tests/python/test_words.py \
  tests/python/test_adapters.py tests/python/test_combined.py \
  tests/python/test_memory_plan.py > "$out/pytest.log" 2>&1
tail -15 "$out/pytest.log"
benchmark() {  # SECONDS_AT_MOST OPTION...
  local most=$1
  shift
  step "$most" "$python" bench/gpu.py --device "$device" "${shape[@]}" \
    ${REQUESTS:+--requests "$REQUESTS"} "$@" 2>> "$out/benchmark.log" | tee -a "$out/benchmark.md"
  (( PIPESTATUS[0] == 0 )) || failed=1
}
for model in "${models[@]}"; do
  (( $(left) > 60 )) || { say "no time left for $model"; failed=1; continue; }
  say "benchmark $model"
  benchmark 150 --models "$model"
done
# Does the largest model fit a small GPU?
if (( $(left) > 60 )); then
  say "benchmark ${models[-1]} in 4 bits, with 1 GB of cache"
  benchmark 120 --models "${models[-1]}" --modes tree --compute int4 --kv-cache-bytes 1000000000
fi
say "done, logs in $out"
exit $failed
