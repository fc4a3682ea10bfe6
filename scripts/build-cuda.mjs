// Builds what tests need of the CUDA kernels into the build folder: `emulated` (an addon that runs them on the CPU) or
// `objects` (nvcc for each GPU). Exits 3 with a reason where this machine lacks what that takes.
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const build = path.join(path.dirname(path.dirname(fileURLToPath(import.meta.url))), 'build')
const targets = {
  emulated: {
    name: 'ssrl-emulated',
    reason: 'there is no boost/context/fiber.hpp, on Debian: apt-get install libboost-context-dev',
  },
  objects: { name: 'ssrl-cuda-objects', reason: 'there is no nvcc' },
}

function cmake(...args) {
  const result = spawnSync('cmake', args, { encoding: 'utf8' })
  return { ok: result.status === 0, text: `${result.error ?? ''}${result.stdout}${result.stderr}` }
}

/** What nvcc says goes into files, for the tests that read it. */
function compilerErrors() {
  const folder = path.join(build, 'cuda')
  const names = fs.existsSync(folder) ? fs.readdirSync(folder).filter((name) => name.endsWith('.ptxas')) : []
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
} else if (!known.text.includes(target.name)) {
  console.log(target.reason)
  process.exitCode = 3
} else {
  const built = cmake(
    '--build',
    build,
    '--target',
    target.name,
    '--parallel',
    String(os.availableParallelism()),
  )
  if (!built.ok) console.error(built.text, compilerErrors())
  process.exitCode = built.ok ? 0 : 1
}
