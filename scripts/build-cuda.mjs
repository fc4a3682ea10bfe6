// Builds the CUDA backend into the build folder: `emulated` (a test addon that runs the kernels on the CPU), `sanitized`
// (programs that run them so, with sanitizers) or `library` (nvcc's, for GPUs). Exits 3 with a reason where this machine lacks what that takes.
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const build = path.join(path.dirname(path.dirname(fileURLToPath(import.meta.url))), 'build')
const noFibers = 'there is no boost/context/fiber.hpp, on Debian: apt-get install libboost-context-dev'
const targets = {
  emulated: { names: ['ssrl-emulated'], reason: noFibers },
  sanitized: { names: ['ssrl-address-sanitized', 'ssrl-thread-sanitized'], reason: noFibers },
  library: { names: ['ssrl-cuda'], reason: 'there is no nvcc' },
}

function cmake(...args) {
  const result = spawnSync('cmake', args, { encoding: 'utf8' })
  return { ok: result.status === 0, text: `${result.error ?? ''}${result.stdout}${result.stderr}` }
}

/** What nvcc says goes into files, for the tests that read it. */
function compilerErrors() {
  const folder = path.join(build, 'cuda')
  const names = fs.existsSync(folder)
    ? fs.readdirSync(folder).filter((name) => /\.(ptxas|log)$/.test(name))
    : []
  const lines = names.flatMap((name) => fs.readFileSync(path.join(folder, name), 'utf8').split('\n'))
  return lines.filter((line) => /error/.test(line)).join('\n')
}

const target = targets[process.argv[2]]
// What the machine has may have changed since the folder was configured.
const configured = cmake(build)
const known = configured.ok && cmake('--build', build, '--target', 'help')
if (!known.ok) {
  console.error(configured.text)
  process.exitCode = 1
} else if (!known.text.includes(target.names[0])) {
  console.log(target.reason)
  process.exitCode = 3
} else {
  const built = cmake(
    '--build',
    build,
    '--target',
    ...target.names,
    '--parallel',
    String(os.availableParallelism()),
  )
  if (!built.ok) console.error(built.text, compilerErrors())
  process.exitCode = built.ok ? 0 : 1
}
