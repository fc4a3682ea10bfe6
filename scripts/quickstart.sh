#!/usr/bin/env bash
# Set-up, then the main job; arguments go to `ssrl quickstart`.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/scripts/setup.sh"
exec node --import="$root/node_modules/tsx/dist/loader.mjs" "$root/lib/cli/main.ts" quickstart "$@"
