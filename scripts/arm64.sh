#!/usr/bin/env bash
# The rooms without torch and their tests for 64-bit Arm: cross-compiled with Debian's g++, run by qemu.
# Says nothing about speed. Needs root once, for the packages; the libraries go to build-arm64/root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD/build-arm64/root

if [[ ! -e $root/complete ]]; then
  apt-get install -y -qq --no-install-recommends g++-aarch64-linux-gnu qemu-user > /dev/null
  dpkg --add-architecture arm64
  apt-get update -qq
  rm -rf "$root" && mkdir -p "$root/packages"
  wanted=(zlib1g-dev libpcre2-dev libutf8proc-dev libzip-dev libgtest-dev libgmock-dev libstdc++6)
  # With all that they need; what is installed for this machine is left alone.
  mapfile -t packages < <(apt-get install -s --no-install-recommends "${wanted[@]/%/:arm64}" |
    sed -n 's/^Inst \([^ ]*:arm64\) .*/\1/p')
  (cd "$root/packages" && apt-get download -qq "${packages[@]}" nlohmann-json3-dev)
  for package in "$root"/packages/*.deb; do dpkg -x "$package" "$root"; done
  touch "$root/complete"
fi
cmake -S . -B build-arm64 -G Ninja -DCMAKE_TOOLCHAIN_FILE=scripts/arm64-toolchain.cmake \
  -DLMFUSION_TORCH=OFF -DLMFUSION_SENTENCEPIECE=OFF > /dev/null
cmake --build build-arm64
# qemu gives up in the child of a program with threads, so what forks is left out.
GTEST_FILTER='-*Fork*' ctest --test-dir build-arm64 --output-on-failure -E fork "$@"
