#!/usr/bin/env bash
# Debian packages, .venv and a build of the given CMake target; what is there already is kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$1

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

install_debian_packages() {
  local missing=() package
  if ! command -v dpkg-query > /dev/null; then
    say "this is not Debian: what debian-packages.txt names must be there already"
    return
  fi
  while read -r package; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null) == installed ]] ||
      missing+=("$package")
  done < debian-packages.txt
  ((${#missing[@]})) || return 0
  local as_root=()
  if ((EUID != 0)); then
    sudo -n true 2> /dev/null || fail "please run: sudo apt-get install ${missing[*]}"
    as_root=(sudo -n)
  fi
  say "installing Debian packages: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
}

# The Python of .venv: PYTHON, or the first of these that is there.
find_python() {
  local name
  if [[ ${PYTHON:-} ]]; then
    command -v "$PYTHON" || fail "PYTHON=$PYTHON is no program"
    return
  fi
  for name in python3.11 python3.12 python3.13 python3.14 python3; do
    # A version manager may have a name for a Python that it does not run.
    command -v "$name" > /dev/null && "$name" -c '' 2> /dev/null && command -v "$name" && return
  done
  fail "no python3 found; install Python 3.11 to 3.14, or name it: PYTHON=... ./run"
}

# A new .venv where the requirements or the Python have changed.
make_virtual_environment() {
  local python stamp
  python=$(find_python)
  "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' ||
    fail "$python is not Python 3.11 to 3.14, which requirements.txt is for: PYTHON=python3.12 ./run"
  stamp=.venv/requirements-$({ cat requirements.txt; "$python" -VV; } | sha256sum | cut -c -16)
  [[ -e $stamp ]] && return
  say "installing the wheels of requirements.txt into .venv (3 GB to download the first time)"
  rm -rf .venv build
  "$python" -m venv .venv
  .venv/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --only-binary :all: \
    -r requirements.txt
  echo "$PWD/python" > "$(.venv/bin/python -c 'import site; print(site.getsitepackages()[0])')/lmfusion.pth"
  touch "$stamp"
}

build() {
  export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
  if [[ ! -e build/build.ninja ]]; then
    say "configuring build/"
    # Where there is nvcc: one architecture of the release's seven, which take many minutes.
    local architecture
    architecture=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null |
      head -1 | tr -d .) || true
    cmake --preset release -DPython3_EXECUTABLE="$PWD/.venv/bin/python" \
      "-DLMFUSION_CUDA_ARCHITECTURES=${architecture:-90}-real" > build-log.txt ||
      { cat build-log.txt >&2; fail "cmake failed"; }
    mv build-log.txt build/configure-log.txt
  fi
  say "building $target (minutes the first time)"
  cmake --build build --target "$target" >&2
}

install_debian_packages
make_virtual_environment
build
