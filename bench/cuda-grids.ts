/** How many blocks each launch has at the sizes that are measured, for a layer of a small model (the shape of Qwen2.5-0.5B). */

import type { Launch } from './cuda-launches.ts'
import * as launches from './cuda-launches.ts'

export interface Grid extends Launch {
  phase: string
  work: string
}

const shape = { heads: 14, kvHeads: 2, headDim: 64 }
const [hidden, ffn, vocabulary] = [896, 4864, 49152]
const products = {
  'q, k, v': [hidden, 1152],
  'attention out': [hidden, hidden],
  'gate, up': [hidden, 2 * ffn],
  down: [ffn, hidden],
} as const

/** Launches that need not fill the card, with the reason. */
export const exceptions: Record<string, string> = {
  sample_rows: 'one block a row, so that token, log-prob and entropy come of one launch',
  norm_rows: 'a warp a row: at 32 rows 115 KB in all',
  rotate: 'at 32 rows 64 KB in all',
  merge_pages: 'adds up the parts of the launch before',
  add_runs: 'adds up the parts of the launch before',
  add_columns: 'adds up the parts of the launch before, or the gradient of a bias',
  add_square_parts: 'adds up the parts of the launch before',
}

type Step = [work: string, run: () => Promise<unknown>]

const decoding = (rows: number): Step[] => [
  ...Object.entries(products).map(
    ([name, [inputs, outputs]]): Step => [name, () => launches.product({ rows, inputs, outputs })],
  ),
  ['head', () => launches.product({ rows, inputs: hidden, outputs: vocabulary })],
  ['attention to 128 keys', () => launches.decode({ rows, length: 128, ...shape })],
  ['attention to 2,048 keys', () => launches.decode({ rows, length: 2048, ...shape })],
  ['sampling', () => launches.sampling(rows, vocabulary)],
]

const learning = (rows: number): Step[] => [
  ...Object.entries(products).flatMap(([name, [inputs, outputs]]): Step[] => [
    [name, () => launches.product({ rows, inputs, outputs })],
    [`${name}, backward`, () => launches.productBackward({ rows, inputs, outputs })],
  ]),
  ['attention, 8 of 1,024', () => launches.attention(sequences)],
  ['attention, 8 of 1,024, backward', () => launches.attentionBackward(sequences)],
  ['attention, 8 groups of 8', () => launches.attention(groups)],
  ['attention, 8 groups of 8, backward', () => launches.attentionBackward(groups)],
  [
    'policy loss, forward and backward',
    () => launches.policyLoss({ rows: 1024, inputs: hidden, vocabulary }),
  ],
  ['norm, swiglu, rope', () => launches.rowWise(rows, hidden)],
  ['embedding', () => launches.embedding(rows, hidden)],
  ['AdamW, global norm', () => launches.optimizer(2 ** 20)],
]

const sequences = { lengths: Array.from({ length: 8 }, () => 1024), ...shape }

/** Prompts of 156 tokens with 8 completions of 128, of which the first comes with the prompt. */
const groups = {
  lengths: Array.from({ length: 64 }, (_, i) => (i % 8 === 0 ? 284 : 128)),
  shared: Array.from({ length: 64 }, (_, i) => (i % 8 === 0 ? 0 : 156)),
  ...shape,
}

/** On a card with so many multiprocessors. */
export async function grids(multiprocessors: number): Promise<Grid[]> {
  const phases: Record<string, Step[]> = {
    'generate, 32 rows': decoding(32),
    'generate, 256 rows': decoding(256),
    'learner, 8,192 tokens': learning(8192),
  }
  const found: Grid[] = []
  for (const [phase, steps] of Object.entries(phases)) {
    for (const [work, run] of steps) {
      const made = await launches.launchesOf(run, multiprocessors)
      // What brings the call's own arguments into place is no part of the model's work.
      const own = made.filter(({ kernel }) => !/^(convert|copy)_pieces/.test(kernel))
      found.push(...own.map((launch) => ({ ...launch, phase, work })))
    }
  }
  return found
}

export const family = (kernel: string): string => kernel.replace(/<.*/, '')
