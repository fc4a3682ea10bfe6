#!/usr/bin/env bash
# The run of docs/runs/smollm2-first.md: cold start, SSRL, evaluation before and after each.
# Usage: bash docs/runs/smollm2-first/run.sh MODEL DATA OUT (a model folder, a folder with the question sets, an empty
# folder). Each stage is skipped when its result is there, so a run that was cut off goes on.
set -euo pipefail
model=$1 data=$2 out=$3
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
ssrl() { node --import="$root/node_modules/tsx/dist/loader.mjs" "$root/lib/cli/main.ts" "$@"; }
mkdir -p "$out"

# 500 questions held out of the training set are for settings; the test sets are only read by `evaluate` below.
head -n -500 "$data/opentriviaqa.train.jsonl" >"$out/train.jsonl"
tail -n 500 "$data/opentriviaqa.train.jsonl" >"$out/settings.jsonl"

evaluate() { # name policy
  [ -e "$out/eval-$1/summary.json" ] || ssrl eval --policy "$2" --dtype bf16 --method self-search \
    --data "$data/opentriviaqa.test.jsonl" --data "$data/triviaqa.test.jsonl" --limit 500 \
    --prompt-template "$here/prompt.txt" --max-new-tokens 128 --output "$out/eval-$1"
}

[ -e "$out/demonstrations.jsonl" ] || ssrl bootstrap --policy "$model" --dtype bf16 --train "$out/train.jsonl" \
  --shots "$root/examples/trivia-shots.jsonl" --limit 300 -n 4 --max-new-tokens 128 --fill-to 300 \
  --output "$out/demonstrations.jsonl" --json >"$out/bootstrap.json"
[ -e "$out/sft/policy" ] || ssrl sft --policy "$model" --dtype bf16 --data "$out/demonstrations.jsonl" \
  --prompt-template "$here/prompt.txt" --batch-size 16 --max-steps 50 --learning-rate 0.00005 --warmup-steps 3 \
  --schedule linear --output "$out/sft"
[ -e "$out/ssrl/policy" ] || ssrl train --policy "$out/sft/policy" --dtype bf16 --train "$out/train.jsonl" \
  --eval "$out/settings.jsonl" --config "$here/train.json" --prompt-template "$here/prompt.txt" --output "$out/ssrl"
evaluate after-ssrl "$out/ssrl/policy"
evaluate cold-start "$out/sft/policy"
evaluate as-it-is "$model"
