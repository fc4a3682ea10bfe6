import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { execa } from 'execa'

/** Greedy decoding by another implementation: 32-bit floats as far as it can, one prompt after the other. */
export interface GreedyRequest {
  /** a folder in Hugging Face layout, or a .gguf file */
  model: string
  /** token ids */
  prompts: number[][]
  newTokens: number
  threads: number
  /** what to tokenize */
  texts: string[]
}

export interface GreedyReply {
  tokens: number[][]
  /** for all prompts together, without loading */
  seconds: number
  ids: number[][]
  version: string
}

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url))
const python = here('.venv/bin/python')

/** How to install the peers; null when they are there. */
export function missingPeers(): string | null {
  const commands: string[] = []
  if (!existsSync(here('node_modules/node-llama-cpp'))) commands.push('npm install --prefix bench/peers')
  if (!existsSync(python)) {
    commands.push(
      'python3 -m venv bench/peers/.venv',
      'bench/peers/.venv/bin/pip install -r bench/peers/python/requirements.txt',
    )
  }
  return commands.length === 0 ? null : commands.join('\n')
}

export function transformersGreedy(request: GreedyRequest): Promise<GreedyReply> {
  return ask(python, here('python/greedy.py'), request)
}

export function llamaCppGreedy(request: GreedyRequest): Promise<GreedyReply> {
  return ask(process.execPath, here('llama-cpp.mjs'), request)
}

async function ask(program: string, script: string, request: GreedyRequest): Promise<GreedyReply> {
  const { stdout } = await execa(program, [script], { input: JSON.stringify(request), stderr: 'inherit' })
  return JSON.parse(stdout) as GreedyReply
}
