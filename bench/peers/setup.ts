/**
 * `npm run bench:peers`: installs what the benchmarks compare with, all of it below bench/peers. What is there already
 * stays; what fails is said, and the rest goes on: `npm run bench -- --peers` reports a missing peer as such.
 */
import { existsSync } from 'node:fs'
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { execa } from 'execa'
import {
  llamaBenchPath,
  llamaBuild,
  llamaSources,
  llamaVersionPath,
  nodeLlamaCppPath,
  pythonPath,
} from './places.ts'

const here = fileURLToPath(new URL('.', import.meta.url))
const llamaPackage = 'llama-cpp-python==0.3.36'

const run = (program: string, args: string[]) => execa(program, args, { cwd: here, stdio: 'inherit' })

async function installNode(): Promise<void> {
  if (existsSync(path.join(nodeLlamaCppPath, 'package.json'))) return
  // Its install script would look for a prebuilt binary, or build one; the binaries are packages of their own.
  // Not `npm ci`: it refuses a lock file without the packages of other platforms, which some registries lack.
  await run('npm', ['install', '--no-save', '--no-audit', '--no-fund', '--ignore-scripts'])
}

async function installPython(): Promise<void> {
  if (!existsSync(pythonPath)) await run('python3', ['-m', 'venv', '.venv'])
  await run(pythonPath, ['-m', 'pip', 'install', '--quiet', '-r', 'python/requirements.txt'])
}

/** llama.cpp from the sources that its Python package carries: built for this machine, and only the benchmark. */
async function buildLlamaCpp(): Promise<void> {
  if (existsSync(llamaBenchPath)) return
  if (!existsSync(llamaSources)) await unpackSources()
  const sources = path.join(llamaSources, 'vendor/llama.cpp')
  const options = {
    CMAKE_BUILD_TYPE: 'Release',
    GGML_NATIVE: 'ON',
    GGML_CCACHE: 'OFF',
    BUILD_SHARED_LIBS: 'OFF',
    LLAMA_CURL: 'OFF',
    LLAMA_BUILD_TESTS: 'OFF',
    LLAMA_BUILD_EXAMPLES: 'OFF',
    LLAMA_BUILD_SERVER: 'OFF',
    LLAMA_BUILD_TOOLS: 'ON',
  }
  const defines = Object.entries(options).map(([name, value]) => `-D${name}=${value}`)
  await run('cmake', ['-S', sources, '-B', llamaBuild, ...defines])
  const jobs = String(os.availableParallelism())
  await run('cmake', ['--build', llamaBuild, '--target', 'llama-batched-bench', '--parallel', jobs])
}

async function unpackSources(): Promise<void> {
  const partial = `${llamaSources}.partial`
  await rm(partial, { recursive: true, force: true })
  await mkdir(partial, { recursive: true })
  const download = [
    '-m',
    'pip',
    'download',
    '--no-deps',
    '--no-binary',
    ':all:',
    '--dest',
    partial,
    llamaPackage,
  ]
  await run('python3', download)
  const archive = (await readdir(partial)).find((name) => name.endsWith('.tar.gz'))!
  await run('tar', ['-xzf', path.join(partial, archive), '-C', partial, '--strip-components=1'])
  await rm(path.join(partial, archive))
  await writeFile(llamaVersionPath, `llama.cpp of ${llamaPackage}, llama-batched-bench, GGML_NATIVE\n`)
  await rename(partial, llamaSources)
}

const steps: [string, () => Promise<void>][] = [
  ['node-llama-cpp', installNode],
  ['PyTorch, transformers, TRL', installPython],
  ['llama.cpp', buildLlamaCpp],
]
for (const [name, step] of steps) {
  try {
    await step()
    console.error(`${name}: there`)
  } catch (error) {
    console.error(`${name}: could not be installed: ${(error as Error).message}`)
    process.exitCode = 1
  }
}
