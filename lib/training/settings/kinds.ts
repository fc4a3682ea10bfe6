import { z } from 'zod'
import type { InformationMask } from '../../rollout/mask.ts'

/** What a setting may hold: how it is checked, how it reads in a message, and how a command line spells it. */
export interface Kind<T> {
  schema: z.ZodType<T>
  /** Completes "Expected … for NAME". */
  expects: string
  /** Placeholder of the flag; empty for a switch. */
  placeholder: string
  /** The value that a command-line word stands for; it is checked by the schema afterwards. */
  read(word: string): unknown
}

interface Range {
  min?: number
  max?: number
  /** The value must lie above this, and not on it. */
  above?: number
  /** The value must lie below this, and not on it. */
  below?: number
}

function rangeText({ min, max, above, below }: Range): string {
  const parts = [
    min === undefined ? '' : `of at least ${min}`,
    above === undefined ? '' : `above ${above}`,
    max === undefined ? '' : `of at most ${max}`,
    below === undefined ? '' : `below ${below}`,
  ]
  return parts
    .filter(Boolean)
    .map((part) => ` ${part}`)
    .join(' and')
}

function inRange(schema: z.ZodNumber, { min, max, above, below }: Range): z.ZodNumber {
  let result = schema
  if (min !== undefined) result = result.min(min)
  if (max !== undefined) result = result.max(max)
  if (above !== undefined) result = result.gt(above)
  if (below !== undefined) result = result.lt(below)
  return result
}

function readNumber(word: string): number | string {
  const value = word.trim() === '' ? Number.NaN : Number(word)
  return Number.isNaN(value) ? word : value
}

export function integer(range: Range = {}): Kind<number> {
  return {
    schema: inRange(z.int(), range),
    expects: `an integer${rangeText(range)}`,
    placeholder: 'integer',
    read: readNumber,
  }
}

export function number(range: Range = {}): Kind<number> {
  return {
    schema: inRange(z.number(), range),
    expects: `a number${rangeText(range)}`,
    placeholder: 'number',
    read: readNumber,
  }
}

export function flag(): Kind<boolean> {
  return { schema: z.boolean(), expects: 'true or false', placeholder: '', read: (word) => word === 'true' }
}

export function text(what = 'a string'): Kind<string> {
  return { schema: z.string().min(1), expects: what, placeholder: 'text', read: (word) => word }
}

export function choice<const T extends string>(...values: T[]): Kind<T> {
  return {
    schema: z.enum(values) as unknown as z.ZodType<T>,
    expects: `one of ${values.join(', ')}`,
    placeholder: values.join('|'),
    read: (word) => word,
  }
}

/** The same, or null (`none` on a command line). */
export function optional<T>(kind: Kind<T>): Kind<T | null> {
  return {
    schema: kind.schema.nullable() as z.ZodType<T | null>,
    expects: `${kind.expects}, or null`,
    placeholder: kind.placeholder,
    read: (word) => (word === 'none' ? null : kind.read(word)),
  }
}

/** A named mask, or the weight that information tokens get in the loss (a bare number on a command line). */
export function informationMask(): Kind<InformationMask> {
  const weight = z.strictObject({ weight: z.number().min(0) })
  return {
    schema: z.union([z.enum(['information', 'all', 'none']), weight]),
    expects: "'information', 'all', 'none' or { weight: a number of at least 0 }",
    placeholder: 'information|all|none|weight',
    read: (word) => (Number.isFinite(readNumber(word)) ? { weight: Number(word) } : word),
  }
}
