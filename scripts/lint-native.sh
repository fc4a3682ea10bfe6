#!/usr/bin/env bash
# Checks the layout of the native sources; with --fix it corrects them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ "${1:-}" = --fix ]; then mode=(-i); else mode=(--dry-run -Werror); fi
find native -name '*.cc' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' | sort | xargs clang-format "${mode[@]}"
