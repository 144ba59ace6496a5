#!/usr/bin/env bash
# demo.sh BIN [--chat]: a real model served by a coordinator and three workers on this machine. Asks one question over gRPC
# and shows the answer as it comes; with --chat the questions are yours. BIN is the folder of the built programs.
set -euo pipefail

bin="${1:?usage: tools/demo.sh BIN [--chat]}"
mode="${2:-}"
tools="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
question='Give three reasons why it is good to work together.'
workers=3

model="$("$tools/fetch_demo_model.sh")"

cat >&2 <<TEXT

  SmolLM2-135M-Instruct ($(du -h "$model" | cut -f1), 4 bits a weight), split over $workers worker processes:
  each holds a third of every layer, and a coordinator leads them.

TEXT

serve=("$bin/bellwether" chat --model "$model" --tensor-parallel "$workers")
# The tool ends the processes that it has started, also on ^C or if it is killed.
if [[ "$mode" == "--chat" ]]; then exec "${serve[@]}" --temperature 0.2 --top-p 0.9; fi
echo "  > $question" >&2
echo >&2
exec "${serve[@]}" --question "$question" --temperature 0 --max-tokens 256
