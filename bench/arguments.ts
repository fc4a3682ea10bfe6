import { parseArgs } from 'node:util'
import { caseNames, knows } from './cases.ts'

export interface Settings {
  names: string[]
  policy?: string
  threads: number
  peers: boolean
  quick: boolean
  rounds: number
  /** Only contenders whose name begins so; ours always. */
  only: string[]
  /** Where rows go; undefined: nowhere. */
  output: string | undefined
}

export const usage = `npm run bench [-- names] [options]

Measures this library, and other programs at the same work. Names are cases or single variants:
${caseNames.join(', ')}; without a name all of them.

  --policy <source>   a model folder or a .gguf file; default: random weights of SmolLM2-135M's shape
  --threads <n>       default: 2
  --peers             other programs too (npm run bench:peers installs them)
  --only <names>      of the peers only these, by the beginning of their names, as 'llama.cpp,TRL bf16'
  --rounds <n>        how often every contender takes its turn; default: 3
  --quick             everything shortened, to see that it runs; no row is kept
  --output <file>     where rows go; default: bench/results.csv`

/** @throws Error saying what was expected and what came */
export function parseSettings(argv: readonly string[], defaultOutput: string): Settings {
  const { values, positionals } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: {
      policy: { type: 'string' },
      threads: { type: 'string' },
      peers: { type: 'boolean' },
      only: { type: 'string' },
      rounds: { type: 'string' },
      quick: { type: 'boolean' },
      output: { type: 'string' },
    },
  })
  const unknown = positionals.find((name) => !knows(name))
  if (unknown !== undefined) {
    throw new Error(
      `Expected a case (${caseNames.join(', ')}) or one of its variants but received ${unknown}`,
    )
  }
  const { quick = false, peers = false, only, policy } = values
  return {
    names: positionals,
    policy,
    threads: count('--threads', values.threads, 2),
    peers,
    quick,
    rounds: count('--rounds', values.rounds, quick ? 1 : 3),
    only: only === undefined ? [] : only.split(','),
    output: values.output ?? (quick ? undefined : defaultOutput),
  }
}

function count(name: string, text: string | undefined, fallback: number): number {
  if (text === undefined) return fallback
  const value = Number(text)
  if (Number.isInteger(value) && value >= 1 && text.trim() !== '') return value
  throw new Error(`Expected a whole number of at least 1 for ${name} but received '${text}'`)
}
