/** What ptxas says of the kernels, for sm_80 and sm_90. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import test from 'ava'

const folder = new URL('../../build/cuda/', import.meta.url)
const files = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith('.ptxas')) : []

interface Resources {
  kernel: string
  architecture: string
  stack: number
  spills: number
  registers: number
}

function resources(text: string): Resources[] {
  const entries = text.split(/Compiling entry function '/).slice(1)
  return entries.map((entry) => ({
    kernel: entry.match(/^[^']+/)![0],
    architecture: entry.match(/for '(sm_\d+)'/)![1]!,
    stack: Number(entry.match(/(\d+) bytes stack frame/)![1]),
    spills: Number(entry.match(/(\d+) bytes spill stores/)![1]),
    registers: Number(entry.match(/Used (\d+) registers/)![1]),
  }))
}

if (files.length === 0) {
  test.skip('CUDA kernels: not compiled (node scripts/build-cuda.mjs library says why)', () => {})
}

for (const file of files) {
  test(`CUDA kernels of ${file.replace('.ptxas', '')} use neither stack nor spills, on sm_80 and sm_90`, (t) => {
    const kernels = resources(readFileSync(new URL(file, folder), 'utf8'))
    t.deepEqual(new Set(kernels.map((each) => each.architecture)), new Set(['sm_80', 'sm_90']))
    for (const { kernel, architecture, stack, spills, registers } of kernels) {
      t.is(stack, 0, `${kernel} on ${architecture}: a stack frame of ${stack} bytes`)
      t.is(spills, 0, `${kernel} on ${architecture}: ${spills} bytes of spills`)
      t.true(registers > 0 && registers <= 255)
    }
  })
}
