#!/usr/bin/env bash
# Tests of kernels on an emulated CPU with AMX (tiles of int8 and bfloat16): Linux in Bochs, as an Intel
# Xeon of 2023. Says nothing about speed: Bochs runs some 70 million instructions a second, on one CPU.
#   scripts/amx.sh [PATTERN]    test programs by name, as ctest -R; those of kernels without one
# GTEST_FILTER and LMFUSION_CPU are passed on; LMFUSION_AMX_SECONDS (600) ends what takes longer. Needs
# root once, for the packages. scripts/amx/bochs.patch is under the licence of Bochs, LGPL 2.1 or later.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
pattern=${1:-^(instruction_set|tile_kernels|packed_weight|packed_blocks|feed_forward|gated_experts|row_kernels)_test}
root=$PWD/build-amx/root
complete=$root/complete-$(sha256sum < scripts/amx/bochs.patch | cut -c 1-12)
boot_seconds=180  # 5 where nothing else runs
limit_seconds=${LMFUSION_AMX_SECONDS:-600}

if [[ ! -e $complete ]]; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends isolinux syslinux-common xorriso > /dev/null
  rm -rf "$root" && mkdir -p "$root/packages" "$root/bochs"
  kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.* \(linux-image-[0-9].*\)/\1/p')
  (cd "$root/packages" && apt-get download -qq -o APT::Sandbox::User=root "$kernel" busybox-static)
  for package in "$root"/packages/*.deb; do dpkg -x "$package" "$root"; done
  # Patched, so from its source, of which Debian keeps one version a release.
  source=bochs_3.0+dfsg.orig.tar.xz
  curl -sSf -o "$root/packages/$source" "https://deb.debian.org/debian/pool/main/b/bochs/$source"
  sha256sum --quiet -c - <<< \
    "78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b  $root/packages/$source"
  tar -xf "$root/packages/$source" -C "$root/bochs" --strip-components=1
  patch -d "$root/bochs" -p1 --quiet < scripts/amx/bochs.patch
  (cd "$root/bochs" && CXXFLAGS=-O2 CFLAGS=-O2 ./configure --with-nogui --enable-x86-64 --enable-avx \
    --enable-evex --enable-amx --enable-all-optimizations --disable-docbook &&
    make -j"$(nproc)") > "$root/bochs.log" 2>&1 || { tail -n 20 "$root/bochs.log"; exit 1; }
  touch "$complete"
fi

cmake -S . -B build-amx -G Ninja -DLMFUSION_TORCH=OFF -DLMFUSION_SENTENCEPIECE=OFF > /dev/null
mapfile -t programs < <(ctest --test-dir build-amx -N -R "$pattern" 2> /dev/null |
  sed -n 's/^ *Test *#[0-9]*: \(.*_test\)$/\1/p')
[[ ${#programs[@]} -gt 0 ]] || { echo "no test program is named $pattern" >&2; exit 2; }
cmake --build build-amx --target "${programs[@]}"

# The machine's file system, in memory: busybox, the programs, and the libraries that they load.
machine=$PWD/build-amx/machine
guest=$machine/guest
rm -rf "$machine" && mkdir -p "$guest"/{bin,dev,proc,sys,tmp,tests} "$machine/disc"
busybox=$(find "$root" -path '*bin/busybox' -type f)
cp "$busybox" "$guest/bin"
cp scripts/amx/init "$guest"
${CC:-gcc} -std=gnu11 -O2 -static scripts/amx/machine.c -o "$guest/bin/machine"
for program in "${programs[@]}"; do
  strip -o "$guest/tests/$program" "build-amx/tests/cpp/$program"
  ldd "build-amx/tests/cpp/$program" | grep -o '/[^ ]*'
done | sort -u | while read -r library; do cp -L --parents "$library" "$guest"; done
{
  echo "export GTEST_COLOR=no"
  for name in GTEST_FILTER LMFUSION_CPU; do
    [[ -z ${!name:-} ]] || printf 'export %s=%q\n' "$name" "${!name}"
  done
} > "$guest/environment"
(cd "$guest" && find . | "$busybox" cpio --quiet -o -H newc) > "$machine/disc/initramfs"

cp "$root"/boot/vmlinuz-* "$machine/disc/vmlinuz"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$machine/disc"
# fsrm: Linux copies short stretches wrongly where a CPU has it but its BIOS did not turn on fast strings.
cat > "$machine/disc/isolinux.cfg" << 'END'
DEFAULT linux
LABEL linux
KERNEL /vmlinuz
INITRD /initramfs
APPEND console=ttyS0,115200 quiet panic=-1 no5lvl mitigations=off clearcpuid=fsrm
END
xorriso -as mkisofs -quiet -o "$machine/disc.iso" -b isolinux.bin -c boot.cat -no-emul-boot \
  -boot-load-size 4 -boot-info-table "$machine/disc" 2> /dev/null

cat > "$machine/bochsrc" << END
display_library: nogui
cpu: model=sapphire_rapids, count=1, ips=100000000, reset_on_triple_fault=0
memory: guest=1024, host=1024
romimage: file=$root/bochs/bios/bios.bin-1.13.0
vgaromimage: file=$root/bochs/bios/vgabios-cirrus.bin-1.13.0
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=$machine/disc.iso, status=inserted
boot: cdrom
clock: sync=none, time0=utc
com1: enabled=1, mode=file, dev=$machine/serial
log: $machine/bochs.log
panic: action=fatal
END
: > "$machine/serial"
"$root/bochs/bochs" -q -f "$machine/bochsrc" < /dev/null > "$machine/bochs.out" 2>&1 &
bochs=$!
trap 'kill "$bochs" 2> /dev/null || true' EXIT
tail -f -n +1 --pid="$bochs" "$machine/serial" | tr -d '\r' &
SECONDS=0
while kill -0 "$bochs" 2> /dev/null; do
  if ((SECONDS > limit_seconds)) ||
     { ((SECONDS > boot_seconds)) && ! grep -q '^--- ' "$machine/serial"; }; then
    kill "$bochs"
    echo "the emulated machine was ended after $SECONDS s" >&2
  fi
  sleep 1
done
wait "$!" || true
# The machine says so before it turns itself off.
status=$(tr -d '\r' < "$machine/serial" | sed -n 's/^--- all: //p')
[[ -n $status ]] || { echo "the emulated machine stopped early; see $machine" >&2; exit 1; }
# Those of kernels find all that they ask for; else they have not run on tiles.
if [[ $# -eq 0 ]] && grep -q '^\[  SKIPPED \]' "$machine/serial"; then
  echo "tests of kernels were skipped" >&2
  status=1
fi
exit "$status"
