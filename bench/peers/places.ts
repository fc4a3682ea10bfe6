import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url))

/** Where the peers are put; git ignores all of it. */
export const pythonPath = here('.venv/bin/python')
export const nodeLlamaCppPath = here('node_modules/node-llama-cpp')
export const llamaSources = here('.cache/llama-cpp-python')
export const llamaBuild = here('.cache/llama.cpp-build')
export const llamaBenchPath = here('.cache/llama.cpp-build/bin/llama-batched-bench')
export const llamaVersionPath = here('.cache/llama.cpp-version')

/** The package that carried the sources, as setup.ts wrote it down. */
export async function llamaVersion(): Promise<string> {
  return (await readFile(llamaVersionPath, 'utf8')).trim()
}
