/** What a variant asks of a contender, and the time that its matrix products alone would take. */
import { newTokensOf, type Sizes, type Variant } from './cases.ts'
import type { Work } from './job.ts'
import type { BenchModel } from './models.ts'
import { type BenchQuestion, promptsOf } from './prompts.ts'

const greedyTokens = 16

export function workOf(
  variant: Variant,
  model: BenchModel,
  questions: readonly BenchQuestion[],
): Work | null {
  const { sizes } = variant
  const take = (count: number, length: number) => promptsOf(questions, model.tokenizer, { count, length })
  switch (sizes.kind) {
    case 'quickstart':
      return null
    case 'search-index':
    case 'search-query':
      return sizes
    case 'search-busy': {
      const { kind, prompts, n, newTokens, latency } = sizes
      const asked = questions.slice(0, prompts).map(({ question }) => question)
      return { kind, questions: asked, n, newTokens, latency }
    }
    case 'load':
      return { kind: 'load' }
    case 'prefill':
      return { kind: 'prefill', prompts: take(1, sizes.promptTokens).tokens }
    case 'generate': {
      const { kind, n } = sizes
      const prompts = take(sizes.prompts, sizes.promptTokens).tokens
      return { kind, prompts, n, newTokens: newTokensOf(sizes), greedyTokens }
    }
    case 'learner': {
      const { kind, promptTokens } = sizes
      return { kind, sequences: take(sizes.sequences, sizes.tokens).tokens, promptTokens }
    }
    case 'grpo-step': {
      const { tokens, texts } = take(sizes.prompts, sizes.promptTokens)
      return { ...sizes, prompts: tokens, texts }
    }
    case 'loop-lag':
    case 'typescript':
    case 'memory': {
      const { kind, steps, prompts, n, newTokens } = sizes
      return { kind, steps, questions: questions.slice(0, 64), promptsPerStep: prompts, n, newTokens }
    }
    default:
      return { kind: sizes.kind, config: model.config, rows: sizes.rows }
  }
}

/** Row counts at which the limit is measured: one row, a batch of 32, of 64, and a long prompt or a micro-batch. */
export const limitRows = [1, 32, 64, 2048]

/** Seconds of the fastest call: [limitRows][products]. */
export type Limit = number[][]

/** Of the model, and the share of its layers that a learner ran forward twice. */
export interface Depth {
  layers: number
  recomputed: number
}

/**
 * Seconds that the matrix products of a variant's work would take at the fastest speed measured for their shapes.
 * Attention and everything row by row count as nothing. NaN where there is no such figure.
 */
export function limitSeconds(sizes: Sizes, { layers, recomputed }: Depth, limit: Limit): number {
  const passes = (rows: number, tokens: number) => {
    const times = limit[limitRows.indexOf(rows)]!
    return (tokens / rows) * layers * times.slice(0, -1).reduce((sum, time) => sum + time, 0)
  }
  const heads = (rows: number, tokens: number) => (tokens / rows) * limit[limitRows.indexOf(rows)]!.at(-1)!
  const whole = (rows: number, tokens: number) => passes(rows, tokens) + heads(rows, tokens)
  switch (sizes.kind) {
    case 'prefill':
      return passes(2048, sizes.promptTokens) + heads(1, 1)
    case 'generate': {
      const { prompts, promptTokens, n } = sizes
      const decoded = n * newTokensOf(sizes).reduce((sum, count) => sum + count, 0)
      return passes(2048, prompts * promptTokens) + whole(rowsNear(prompts * n), decoded)
    }
    case 'learner': {
      const { sequences, tokens } = sizes
      const active = sequences * (tokens - sizes.promptTokens)
      return (3 + recomputed) * passes(2048, sequences * tokens) + 3 * heads(2048, active)
    }
    case 'grpo-step': {
      const { prompts, promptTokens, n, newTokens } = sizes
      const sampled = prompts * n * newTokens
      const tokens = prompts * promptTokens + sampled
      const generation = passes(2048, prompts * promptTokens) + whole(rowsNear(prompts * n), sampled)
      return generation + 4 * (passes(2048, tokens) + heads(2048, sampled))
    }
    default:
      return Number.NaN
  }
}

const rowsNear = (rows: number) => [64, 32].find((count) => rows >= count) ?? 1
