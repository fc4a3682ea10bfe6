import { readFileSync } from 'node:fs'
import type { Question } from '../../lib/data/questions.ts'
import { Policy } from '../../lib/policy/policy.ts'
import { Tokenizer } from '../../lib/policy/tokenizer.ts'
import { plainLlama } from './model-config.ts'

/** The small world's tokenizer: byte-level BPE, tags of several tokens each. */
export function worldTokenizer(): Tokenizer {
  const text = readFileSync(new URL('../../assets/quickstart-tokenizer.json', import.meta.url), 'utf8')
  const config = JSON.stringify({ eos_token: '<|end|>' })
  return new Tokenizer(
    new Map([
      ['tokenizer.json', text],
      ['tokenizer_config.json', config],
    ]),
  )
}

/** Random weights, a few thousand parameters, real text. */
export function tinyPolicy({
  seed = 1,
  dtype = 'f32' as 'f32' | 'bf16',
  maxPositions = 256,
} = {}): Promise<Policy> {
  const tokenizer = worldTokenizer()
  const config = {
    ...plainLlama,
    hiddenSize: 32,
    intermediateSize: 48,
    numLayers: 2,
    numHeads: 4,
    numKvHeads: 2,
    headDim: 8,
    vocabSize: tokenizer.vocabSize,
    maxPositions,
    eosTokenIds: tokenizer.endTokenIds(),
  } as const
  return Policy.initialize(config as never, { tokenizer, seed, dtype })
}

export function questions(count: number): Question[] {
  return Array.from({ length: count }, (_, index) => ({
    id: `q${index}`,
    question: `Where was person ${index} born?`,
    goldenAnswers: [`city ${index}`],
    fields: { id: `q${index}`, number: index },
  }))
}

/** Short wording, so that a tiny policy's steps take milliseconds. */
export const shortTemplate = 'Question: {question}\n'
