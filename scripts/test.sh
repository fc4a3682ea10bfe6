#!/usr/bin/env bash
# Set-up, then every check; arguments go to ava. Ends with `N passed, N failed, N skipped`.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
if ! bash scripts/setup.sh; then
  echo '0 passed, 1 failed, 0 skipped'
  exit 1
fi
exec node scripts/checks.mjs "$@"
