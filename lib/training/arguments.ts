import { SsrlError } from '../errors.ts'

/** @throws SsrlError ERR_INVALID_ARG: what was expected for which value, and what came */
export function invalid(name: string, expected: string, value: unknown): never {
  throw new SsrlError('ERR_INVALID_ARG', `Expected ${expected} for ${name} but received ${describe(value)}`)
}

/** Refuses keys that mean nothing: a misspelt option must not go unnoticed. */
export function checkFields(what: string, value: unknown, known: readonly string[]): void {
  if (typeof value !== 'object' || value === null) invalid(what, 'an object', value)
  const unknown = Object.keys(value).find((key) => !known.includes(key))
  if (unknown !== undefined) {
    throw new SsrlError(
      'ERR_INVALID_ARG',
      `Expected ${what} to have only ${known.join(', ')} but received ${unknown}`,
    )
  }
}

export interface Range {
  /** Stands in for undefined. */
  fallback?: number
  least?: number
  above?: number
  below?: number
}

/** A finite number in a range. */
export function numberOption(name: string, value: unknown, range: Range): number {
  const { fallback, least = -Infinity, above = -Infinity, below = Infinity } = range
  if (value === undefined && fallback !== undefined) return fallback
  if (typeof value === 'number' && Number.isFinite(value) && value >= least && value > above && value < below)
    return value
  const bounds = [
    ...(range.least === undefined ? [] : [`of at least ${least}`]),
    ...(range.above === undefined ? [] : [`above ${above}`]),
    ...(range.below === undefined ? [] : [`below ${below}`]),
  ].join(' and ')
  return invalid(name, bounds === '' ? 'a finite number' : `a number ${bounds}`, value)
}

function describe(value: unknown): string {
  if (ArrayBuffer.isView(value) && 'length' in value)
    return `${value.constructor.name} of ${value.length} values`
  if (Array.isArray(value)) return `an array of ${value.length}`
  if (typeof value === 'object' && value !== null) {
    return `an object of class ${value.constructor?.name ?? 'Object'}`
  }
  return typeof value === 'string' ? JSON.stringify(value) : String(value)
}
