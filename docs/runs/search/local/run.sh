#!/usr/bin/env bash
# The run on a local index of docs/runs/search.md: index, questions, cold start, RL with real searches, evaluations.
# Usage: bash docs/runs/search/local/run.sh MODEL DATA OUT (a model folder, a folder with the question sets, an empty
# folder). Each stage is skipped when its result is there, so a run that was cut off goes on.
set -euo pipefail
model=$1 data=$2 out=$3
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../../../.." && pwd)"
tsx="$root/node_modules/tsx/dist/loader.mjs"
ssrl() { node --import="$tsx" "$root/lib/cli/main.ts" "$@"; }
index="local:$out/index"
mkdir -p "$out"

[ -e "$out/index/index.sqlite" ] || ssrl index --corpus "$data/wiki-passages.jsonl" --output "$out/index"
# Of the training sets, the questions that can be answered from these passages; the last 100 are for settings.
[ -e "$out/answerable.jsonl" ] || {
  node --import="$tsx" "$root/scripts/answerable-questions.ts" "$out/index" 2 \
    "$data/ambigqa.train.jsonl" "$data/opentriviaqa.train.jsonl" >"$out/answerable.tmp"
  mv "$out/answerable.tmp" "$out/answerable.jsonl"
}
head -n -100 "$out/answerable.jsonl" >"$out/train.jsonl"
tail -n 100 "$out/answerable.jsonl" >"$out/settings.jsonl"

train() { # name command flags
  local folder="$out/$1" command=$2
  shift 2
  [ -e "$folder/policy" ] && return
  if ls -d "$folder"/checkpoints/step-* >/dev/null 2>&1; then
    ssrl "$command" --resume "$folder"
  else
    rm -rf "$folder"
    ssrl "$command" "$@" --output "$folder"
  fi
}
evaluate() { # name policy flags
  local name=$1 policy=$2
  shift 2
  [ -e "$out/eval-$name/summary.json" ] || ssrl eval --policy "$policy" --dtype bf16 --method self-search \
    --data "$out/settings.jsonl" --data "$data/triviaqa.test.jsonl" --limit 100 --prompt-template "$here/prompt.txt" \
    --max-new-tokens 400 --search "$index" --search-top-k 2 --max-document-tokens 80 --max-searches 1 \
    --output "$out/eval-$name" "$@"
}

# The cold start teaches the form alone: a template writes thought, query and answer around documents of the index.
[ -e "$out/demonstrations.jsonl" ] || {
  ssrl bootstrap --template --policy "$model" --train "$out/train.jsonl" --search "$index" --search-top-k 2 \
    --max-document-tokens 80 --output "$out/demonstrations.all"
  head -n 480 "$out/demonstrations.all" >"$out/demonstrations.jsonl"
}
tuning=(--dtype bf16 --data "$out/demonstrations.jsonl" --prompt-template "$here/prompt.txt" --batch-size 16
  --max-steps 30 --learning-rate 0.00005 --warmup-steps 3 --schedule linear --mask-information)
train sft sft --policy "$model" "${tuning[@]}"
train rl train --policy "$out/sft/policy" --dtype bf16 --train "$out/train.jsonl" --config "$here/train.json" \
  --prompt-template "$here/prompt.txt" --search-provider "$index"
evaluate after-rl "$out/rl/policy"
evaluate cold-start "$out/sft/policy"
# Greedy answers are one thing, the samples that training learns from another.
evaluate after-rl-sampled "$out/rl/policy" -n 4 --temperature 1 --seed 1
evaluate cold-start-sampled "$out/sft/policy" -n 4 --temperature 1 --seed 1
