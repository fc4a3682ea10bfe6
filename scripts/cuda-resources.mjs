// Writes what ptxas said of each CUDA kernel to bench/cuda-resources.csv, with the warps of a multiprocessor that its
// registers leave room for. `node scripts/build-cuda.mjs objects` comes first.
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
const folder = path.join(root, 'build', 'cuda')
const registersOfMultiprocessor = 65536
const mostWarps = 64

/** Registers go to warps in pieces of 256, so to a thread in pieces of 8. */
const warpsFor = (registers) =>
  Math.min(mostWarps, Math.floor(registersOfMultiprocessor / (32 * Math.ceil(registers / 8) * 8)))

function demangle(name) {
  const text = spawnSync('c++filt', ['--no-params', name], { encoding: 'utf8' }).stdout.trim()
  return text.replace(/^void /, '').replace(/ssrl::cuda::(_GLOBAL__N__\w+::|\(anonymous namespace\)::)?/g, '')
}

const rows = fs
  .readdirSync(folder)
  .filter((name) => name.endsWith('.ptxas'))
  .flatMap((file) => {
    const text = fs.readFileSync(path.join(folder, file), 'utf8')
    return text
      .split(/Compiling entry function '/)
      .slice(1)
      .map((entry) => {
        const number = (pattern) => Number(entry.match(pattern)[1])
        const registers = number(/Used (\d+) registers/)
        return [
          file.replace('.ptxas', '.cu'),
          `"${demangle(entry.match(/^[^']+/)[0])}"`,
          entry.match(/for '(sm_\d+)'/)[1],
          registers,
          number(/(\d+) bytes stack frame/),
          number(/(\d+) bytes spill stores/),
          warpsFor(registers),
        ].join(',')
      })
  })
const head = 'file,kernel,architecture,registers,stack_bytes,spill_bytes,warps_by_registers'
fs.writeFileSync(path.join(root, 'bench', 'cuda-resources.csv'), `${[head, ...rows.sort()].join('\n')}\n`)
