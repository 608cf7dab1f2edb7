#!/usr/bin/env bash
# environment.sh NAME [OPTION...]: runs decode_NAME.py of this folder with a toolkit's own packages
# (--install: only sees to it that they are there).
# They are those of NAME.txt, from PyPI and without what they depend on, in an environment of their
# own under $LMFUSION_REAL_DECODERS (default ~/.cache/lmfusion/real_decoders). Everything else, torch
# and lmfusion too, is the project's .venv, which ./run setup makes and nothing here changes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
name=$1
shift
folder=${LMFUSION_REAL_DECODERS:-${LMFUSION_CACHE:-$HOME/.cache/lmfusion}/real_decoders}
environment=$folder/$name
python=$environment/bin/python

if ! cmp -s "$here/$name.txt" "$environment/complete"; then
  rm -rf "$environment"
  mkdir -p "$folder"
  "$root/.venv/bin/python" -m venv --without-pip "$environment"
  "$root/.venv/bin/python" -m pip --python "$python" install --quiet --no-deps \
    --disable-pip-version-check --root-user-action ignore -r "$here/$name.txt"
  cp "$here/$name.txt" "$environment/complete"
fi
[[ ${1:-} != --install ]] || exit 0
# A line that is run, since the project's own folder has .pth files too.
echo "import site; site.addsitedir('$("$root/.venv/bin/python" -c \
  'import sysconfig; print(sysconfig.get_path("purelib"))')')" > \
  "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
PYTHONPATH=$root/examples exec "$python" "$here/decode_$name.py" "$@"
