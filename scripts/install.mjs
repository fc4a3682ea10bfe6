// Builds the addon, or says what is missing. It uses nothing but Node, since it runs before anything is installed.
//
//   node scripts/install.mjs            npm's install hook: builds if it can, else prints the one command that helps
//   node scripts/install.mjs --require  the same, but fails when there is no working addon in the end
//   node scripts/install.mjs --missing  prints the apt packages that this machine lacks
//   node scripts/install.mjs --optional prints the apt packages without which some tests are skipped
//   node scripts/install.mjs --hint     prints the command that installs them on this system
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import { createRequire } from 'node:module'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
const addonPath = path.join(root, 'build', 'Release', 'ssrl.node')
const stampPath = path.join(root, 'build', '.sources')
const logPath = path.join(root, 'build', 'build.log')
const cudaLogPath = path.join(root, 'build', 'cuda.log')

// The package as npm installs it has no lock file.
const inRepository = fs.existsSync(path.join(root, 'package-lock.json'))

const commands = {
  'apt-get': 'apt-get install -y cmake g++ make libdnnl-dev libhwy-dev nlohmann-json3-dev',
  dnf: 'dnf install -y cmake gcc-c++ make onednn-devel highway-devel json-devel   # untested',
  pacman: 'pacman -S --needed cmake gcc make onednn highway nlohmann-json   # untested',
  zypper: 'zypper install -y cmake gcc-c++ make onednn-devel highway-devel nlohmann_json-devel   # untested',
  brew: 'brew install cmake libomp onednn highway nlohmann-json   # untested',
}

function hasProgram(name) {
  const folders = (process.env.PATH ?? '').split(path.delimiter)
  return folders.some((folder) => folder && fs.existsSync(path.join(folder, name)))
}

function hasHeader(header) {
  const compiler = process.env.CXX || 'c++'
  const source = `#include <${header}>\n`
  const result = spawnSync(compiler, ['-std=c++20', '-M', '-x', 'c++', '-'], { input: source, stdio: 'pipe' })
  return result.status === 0
}

/** CMake looks there too. SSRL_SKIP_CUDA=1 keeps the compiler, which takes minutes, out of it. */
function hasNvcc() {
  if (process.env.SSRL_SKIP_CUDA === '1') return false
  return hasProgram('nvcc') || fs.existsSync('/usr/local/cuda/bin/nvcc')
}

/** Debian names of what is not there. Headers can only be asked for once there is a compiler. */
function missingPackages() {
  const compiler = hasProgram(process.env.CXX || 'c++') || hasProgram('g++')
  const missing = []
  if (!hasProgram('cmake')) missing.push('cmake')
  if (!compiler) missing.push('g++')
  if (!hasProgram('make') && !hasProgram('ninja')) missing.push('make')
  if (!compiler || !hasHeader('oneapi/dnnl/dnnl.hpp')) missing.push('libdnnl-dev')
  if (!compiler || !hasHeader('hwy/highway.h')) missing.push('libhwy-dev')
  if (!compiler || !hasHeader('nlohmann/json.hpp')) missing.push('nlohmann-json3-dev')
  return missing
}

/** Debian names of what only the repository's own checks use. */
function optionalPackages() {
  if (!inRepository) return []
  const optional = []
  if (!hasProgram('clang-format')) optional.push('clang-format')
  if (!hasHeader('boost/context/fiber.hpp')) optional.push('libboost-context-dev')
  return optional
}

function systemHint() {
  const manager = Object.keys(commands).find(hasProgram)
  if (!manager) return `with your package manager, what Debian calls: ${commands['apt-get'].slice(19)}`
  const asRoot = manager === 'brew' || process.getuid?.() === 0
  return `${asRoot ? '' : 'sudo '}${commands[manager]}`
}

/** The one command that brings what is missing, typed from the folder where npm was started. */
function setupCommand() {
  if (inRepository) return 'npm run setup'
  const relative = path.relative(process.env.INIT_CWD ?? process.cwd(), root)
  return `bash ${path.join(relative.startsWith('..') ? root : relative, 'scripts', 'setup.sh')}`
}

/** A fingerprint of all that the addon is made from. */
function sourceHash() {
  const hash = createHash('sha256').update(`${process.platform} ${process.arch} ${hasNvcc() ? 'CUDA' : ''}\n`)
  const add = (file) => hash.update(`${path.relative(root, file)}\0`).update(fs.readFileSync(file))
  const walk = (folder) => {
    for (const entry of fs
      .readdirSync(folder, { withFileTypes: true })
      .sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const file = path.join(folder, entry.name)
      if (entry.isDirectory()) walk(file)
      else if (/\.(cc|h|cu|cuh)$/.test(entry.name)) add(file)
    }
  }
  walk(path.join(root, 'native'))
  add(path.join(root, 'CMakeLists.txt'))
  return hash.digest('hex')
}

/** Loads the addon in a process of its own, so that a broken one can't take this one along. */
function loadError() {
  const script = `require(${JSON.stringify(addonPath)})`
  const result = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' })
  if (result.status === 0) return null
  return (
    result.stderr.match(/Error: (.*)/)?.[1] ??
    `the process that loaded it ended with ${result.signal ?? result.status}`
  )
}

function isUpToDate(hash) {
  if (!fs.existsSync(addonPath) || !fs.existsSync(stampPath)) return false
  return fs.readFileSync(stampPath, 'utf8') === hash && loadError() === null
}

/** A build folder that was copied from elsewhere makes CMake stop, and so does one whose settings were kept. */
function dropForeignCache() {
  const cache = path.join(root, 'build', 'CMakeCache.txt')
  if (!fs.existsSync(cache)) return
  const home = fs.readFileSync(cache, 'utf8').match(/^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m)?.[1]
  if (home !== fs.realpathSync(root) && home !== root)
    fs.rmSync(path.join(root, 'build'), { recursive: true })
}

/** Runs cmake-js; all output goes to the log, and the steps to `onStep`. */
function compile(onStep, logFile, target = []) {
  dropForeignCache()
  fs.mkdirSync(path.dirname(logFile), { recursive: true })
  const log = fs.createWriteStream(logFile)
  const manifest = createRequire(import.meta.url).resolve('cmake-js/package.json')
  const cli = path.join(path.dirname(manifest), JSON.parse(fs.readFileSync(manifest, 'utf8')).bin['cmake-js'])
  const args = [cli, 'build', '--directory', root, '--parallel', String(os.availableParallelism()), ...target]
  return new Promise((resolve) => {
    const child = spawn(process.execPath, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [child.stdout, child.stderr]) {
      let rest = ''
      stream.setEncoding('utf8').on('data', (text) => {
        log.write(text)
        const lines = (rest + text).split('\n')
        rest = lines.pop()
        for (const line of lines) if (/^\[[ \d/%]+\]/.test(line)) onStep(line)
      })
    }
    child.on('close', (status) => log.end(() => resolve(status === 0)))
  })
}

/** npm hides what an install hook of a dependency prints; a terminal is told directly. */
function tell(message) {
  if (!process.stdout.isTTY && process.env.npm_lifecycle_event === 'install') {
    try {
      fs.writeFileSync('/dev/tty', `${message}\n`)
      return
    } catch {}
  }
  console.log(message)
}

function explain(reason) {
  return [
    `ssrl: the native addon is not built: ${reason}`,
    `ssrl: this command installs what is missing and builds it:  ${setupCommand()}`,
  ].join('\n')
}

function buildFailure() {
  const lines = fs.existsSync(logPath) ? fs.readFileSync(logPath, 'utf8').trimEnd().split('\n') : []
  const cause = lines.findIndex((line) => /CMake Error|error:/.test(line))
  const excerpt = cause < 0 ? lines.slice(-15) : lines.slice(cause, cause + 15)
  return `the build failed (all of it: ${logPath}):\n${excerpt.map((line) => `    ${line}`).join('\n')}`
}

/** Returns null when there is a working addon in the end, else the reason why not. */
async function buildAddon(onStep) {
  const hash = sourceHash()
  if (isUpToDate(hash)) return null
  const missing = missingPackages()
  const essential = missing.filter((name) => ['cmake', 'g++', 'make'].includes(name))
  if (essential.length > 0) return `there is no ${essential.join(', no ')}`
  // Libraries outside of the compiler's own folders are CMake's to find.
  if (missing.length > 0 && hasProgram('apt-get')) return `the packages ${missing.join(', ')} are missing`
  if (!(await compile(onStep, logPath))) return buildFailure()
  const error = loadError()
  if (error !== null) return `it was built, but can't be loaded: ${error}`
  await buildCuda(onStep)
  fs.writeFileSync(stampPath, hash)
  if (!inRepository) dropIntermediates()
  return null
}

/** The CUDA library is a plus: without it the addon computes on the CPU, and `ssrl doctor` says so. */
async function buildCuda(onStep) {
  if (!hasNvcc()) return
  if (await compile(onStep, cudaLogPath, ['--target', 'ssrl-cuda'])) return
  tell(`ssrl: the CUDA library could not be built, the CPU computes. All of what was said: ${cudaLogPath}`)
}

/** A dependency is not built twice: what the compiler left is tens of megabytes. */
function dropIntermediates() {
  const build = path.dirname(stampPath)
  for (const name of fs.readdirSync(build)) {
    if (!['Release', path.basename(stampPath), path.basename(cudaLogPath)].includes(name))
      fs.rmSync(path.join(build, name), { recursive: true })
  }
}

const mode = process.argv[2] ?? ''
if (mode === '--missing') {
  console.log(missingPackages().join(' '))
} else if (mode === '--optional') {
  console.log(optionalPackages().join(' '))
} else if (mode === '--hint') {
  console.log(systemHint())
} else if (process.env.SSRL_SKIP_BUILD !== '1') {
  const strict = mode === '--require'
  const reason = await buildAddon((line) => strict && console.error(line))
  if (reason !== null) tell(explain(reason))
  if (reason !== null && strict) process.exitCode = 1
}
