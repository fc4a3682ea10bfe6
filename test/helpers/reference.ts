import type { LearnerBatch, LossOptions } from '../../lib/training/learner.ts'
import { readSafetensors } from './safetensors.ts'
import { sharedPath } from './shared.ts'

export const fixtureNames = ['llama', 'llama3-rope', 'qwen2', 'qwen3'] as const
export const lossTypes = ['sft', 'grpo', 'bnpo', 'dr_grpo'] as const

/** One of the four tiny models with what transformers computed for it. */
export class Reference {
  readonly folder: string
  readonly #tensors

  constructor(name: string) {
    this.folder = sharedPath('fixtures', 'models', name)
    this.#tensors = readSafetensors(`${this.folder}/reference.safetensors`)
  }

  floats(name: string): Float32Array {
    const data = this.#tensors.get(name)?.data
    if (!(data instanceof Float32Array)) throw new Error(`The reference has no floats ${name}`)
    return data
  }

  /** Row `sequence` of a padded array [4, columns], cut to `count`. */
  row(name: string, sequence: number, count: number): Float32Array | Int32Array | Uint8Array {
    const { shape, data } = this.#tensors.get(name)!
    const width = data.length / shape[0]!
    return data.slice(sequence * width, sequence * width + count)
  }

  get lengths(): number[] {
    return [...this.#tensors.get('lengths')!.data]
  }

  /** The sequences without their padding. */
  get sequences(): Int32Array[] {
    return this.lengths.map((length, s) => this.row('input_ids', s, length) as Int32Array)
  }

  /** A per-token array, one less than tokens. */
  perToken(name: string): Float32Array[] {
    return this.lengths.map((length, s) => Float32Array.from(this.row(name, s, length - 1)))
  }

  /** 20 ids of a prompt, and the 24 greedy ones that follow. */
  get greedy(): { prompt: Int32Array; greedy: Int32Array } {
    const ids = this.#tensors.get('greedy')!.data as Int32Array
    return { prompt: ids.slice(0, 20), greedy: ids.slice(20) }
  }

  batch(type: LossOptions['type']): LearnerBatch {
    const tokens = this.sequences
    if (type === 'sft') {
      return { tokens, lossMask: tokens.map(({ length }) => new Uint8Array(length - 1).fill(1)) }
    }
    return {
      tokens,
      lossMask: this.perToken('loss_mask').map((mask) => Uint8Array.from(mask)),
      advantages: this.floats('advantages'),
      oldLogProbs: this.perToken('old_logprobs'),
      referenceLogProbs: this.perToken('ref_logprobs'),
    }
  }

  loss(type: LossOptions['type']): LossOptions {
    if (type === 'sft') return { type }
    return { type, epsilon: 0.2, epsilonHigh: 0.28, beta: 0.05, maxCompletionLength: 128 }
  }
}

/** The largest |a - b|; NaN if there is one. */
export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`Lengths differ: ${a.length} and ${b.length}`)
  let largest = 0
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs(a[i]! - b[i]!)
    if (!(difference <= largest)) largest = difference
  }
  return largest
}

/** The largest |a - b| / max(1, |b|). */
export function largestError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const scale = Float64Array.from(b, (value) => Math.max(1, Math.abs(value)))
  return largestDifference(
    Float64Array.from(a, (value, i) => value / scale[i]!),
    Float64Array.from(b, (value, i) => value / scale[i]!),
  )
}

export function largestMagnitude(values: ArrayLike<number>): number {
  let largest = 0
  for (let i = 0; i < values.length; i++) largest = Math.max(largest, Math.abs(values[i]!))
  return largest
}

export function concat(arrays: readonly Float32Array[]): Float32Array {
  const whole = new Float32Array(arrays.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const array of arrays) {
    whole.set(array, at)
    at += array.length
  }
  return whole
}

/** Sequences one after another, as the addon takes them. */
export function flatten(sequences: readonly Int32Array[]): { tokens: Int32Array; offsets: Int32Array } {
  const offsets = new Int32Array(sequences.length + 1)
  for (const [i, { length }] of sequences.entries()) offsets[i + 1] = offsets[i]! + length
  const tokens = new Int32Array(offsets[sequences.length]!)
  for (const [i, sequence] of sequences.entries()) tokens.set(sequence, offsets[i]!)
  return { tokens, offsets }
}
