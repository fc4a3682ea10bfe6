import { invalid } from './arguments.ts'

export function readSequences(tokens: unknown): Int32Array[] {
  if (!Array.isArray(tokens)) return invalid('tokens', 'an array of Int32Array', tokens)
  for (const [index, sequence] of tokens.entries()) {
    if (!(sequence instanceof Int32Array) || sequence.length === 0) {
      invalid(`tokens[${index}]`, 'an Int32Array of at least one token', sequence)
    }
  }
  return tokens
}

/** Turns an array of one array a sequence into one flat array. */
export class Flattener {
  readonly sequences: readonly Int32Array[]
  /** Per-token values of all sequences. */
  readonly count: number

  constructor(sequences: readonly Int32Array[]) {
    this.sequences = sequences
    this.count = sequences.reduce((sum, { length }) => sum + length - 1, 0)
  }

  tokens(): { tokens: Int32Array; offsets: Int32Array } {
    const offsets = new Int32Array(this.sequences.length + 1)
    const tokens = new Int32Array(this.count + this.sequences.length)
    for (const [index, sequence] of this.sequences.entries()) {
      tokens.set(sequence, offsets[index]!)
      offsets[index + 1] = offsets[index]! + sequence.length
    }
    return { tokens, offsets }
  }

  /** Calls back with each sequence's index, and the range of its values in a flat array. */
  visit(callback: (index: number, start: number, end: number) => void) {
    let start = 0
    for (const [index, { length }] of this.sequences.entries()) {
      callback(index, start, start + length - 1)
      start += length - 1
    }
  }

  /** One Float32Array a sequence; values must be finite where `weights` is not 0. */
  join(name: string, arrays: unknown, weights?: Float32Array): Float32Array {
    this.checkCount(name, arrays)
    const flat = new Float32Array(this.count)
    this.visit((index, start, end) => {
      const values: unknown = arrays[index]
      if (!(values instanceof Float32Array) || values.length !== end - start) {
        return invalid(
          `${name}[${index}]`,
          `a Float32Array of ${end - start} values, one less than tokens,`,
          values,
        )
      }
      flat.set(values, start)
      for (let t = start; t < end; t++) {
        if (Number.isFinite(flat[t]) || weights?.[t] === 0) continue
        invalid(`${name}[${index}][${t - start}]`, 'a finite number', flat[t])
      }
    })
    return flat
  }

  checkCount(name: string, arrays: unknown): asserts arrays is unknown[] {
    if (Array.isArray(arrays) && arrays.length === this.sequences.length) return
    invalid(name, `an array of ${this.sequences.length} typed arrays, one a sequence,`, arrays)
  }
}
