#!/usr/bin/env bash
# Brings what this machine lacks: system packages, npm packages (in the repository), the addon. Seconds when all is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { echo "setup: $*" >&2; }
stop() {
  say "$@"
  exit 1
}

check_node() {
  command -v node >/dev/null || stop 'Node.js 20.19 or newer is needed, and there is no `node` here. See https://nodejs.org'
  node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' ||
    stop "Node.js 20.19 or newer is needed, this is $(node --version). See https://nodejs.org"
}

# Runs apt-get as root, through sudo where needed; 2 when there is no way to become root.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    env DEBIAN_FRONTEND=noninteractive "$@"
  elif ! command -v sudo >/dev/null; then
    return 2
  elif sudo -n true 2>/dev/null || [ -t 0 ]; then
    sudo env DEBIAN_FRONTEND=noninteractive "$@"
  else
    return 2
  fi
}

apt_install() {
  as_root apt-get install -y --no-install-recommends "$@" >&2 && return 0
  [ $? = 2 ] && return 2
  # The package lists may be empty or old.
  as_root apt-get update >&2 || true
  as_root apt-get install -y --no-install-recommends "$@" >&2
}

install_system_packages() {
  local missing=($(node scripts/install.mjs --missing)) optional=($(node scripts/install.mjs --optional))
  [ ${#missing[@]} = 0 ] && [ ${#optional[@]} = 0 ] && return
  if ! command -v apt-get >/dev/null; then
    [ ${#missing[@]} = 0 ] || say "not found (by their Debian names): ${missing[*]}. To install them: $(node scripts/install.mjs --hint)"
    return
  fi
  say "installing ${missing[*]} ${optional[*]}"
  local status=0
  apt_install "${missing[@]}" "${optional[@]}" || status=$?
  [ $status = 0 ] || [ ${#missing[@]} = 0 ] && return
  local command="apt-get update && apt-get install -y ${missing[*]}"
  [ $status = 2 ] && stop "installing packages needs root, and there is no sudo that works here. As root: $command"
  stop "apt-get could not install ${missing[*]} (see above; is the network there?). To try by hand: sudo sh -c '$command'"
}

npm_packages_match() {
  [ -L node_modules ] && return # a shared folder is not ours to change
  node - <<'JS'
const fs = require('node:fs')
const read = (file) => JSON.parse(fs.readFileSync(file, 'utf8')).packages
try {
  const wanted = read('package-lock.json')
  const present = read('node_modules/.package-lock.json')
  const differs = ([name, entry]) => name && !entry.optional && present[name]?.version !== entry.version
  process.exit(Object.entries(wanted).some(differs) ? 1 : 0)
} catch {
  process.exit(1)
}
JS
}

install_npm_packages() {
  npm_packages_match && return
  say 'installing npm packages'
  SSRL_SKIP_BUILD=1 npm ci --no-audit --no-fund >&2 ||
    stop 'npm ci failed (see above; is the network there?). To try by hand: npm ci && npm run setup'
}

check_node
install_system_packages
if [ -e package-lock.json ]; then install_npm_packages; fi
node scripts/install.mjs --require ||
  stop "what the addon needs can be installed by: $(node scripts/install.mjs --hint)"
say 'ready'
