import { randomBytes } from 'node:crypto'
import { SsrlError } from '../errors.ts'
import type { NativeGenerateRequest } from '../native.ts'

/** How tokens are drawn. A default is stated once, in `samplingDefaults`. */
export interface SamplingOptions {
  /** 0 is greedy: the likeliest token, the lowest id on ties */
  temperature?: number
  /** draw from the likeliest tokens that add up to this probability, in (0, 1] */
  topP?: number
  /** draw from this many likeliest tokens; 0 is all */
  topK?: number
  /** draw from tokens at least this many times as likely as the likeliest, in [0, 1] */
  minP?: number
  /** a completion has at most this many tokens, and never more than the context holds */
  maxNewTokens?: number
  /** a completion ends with the token that completes one of these texts */
  stop?: string[]
  /** an integer in [0, 2^64); the same request with the same seed gives the same tokens, whatever else is in the batch */
  seed?: number | bigint
  /** go on past end tokens, for benchmarks */
  ignoreEnd?: boolean
}

export const samplingDefaults = {
  temperature: 1,
  topP: 1,
  topK: 0,
  minP: 0,
  maxNewTokens: 256,
  stop: [] as readonly string[],
  ignoreEnd: false,
} as const

/** Options with every default filled in; `seed` is the caller's business. */
export type ResolvedSampling = Required<Omit<SamplingOptions, 'seed'>>

export const samplingKeys = [...Object.keys(samplingDefaults), 'seed']

const mostInt = 2 ** 31 - 1
const seedLimit = 2n ** 64n

/**
 * Checks sampling options and fills the defaults in.
 * @param where prefix for messages, such as `requests[3].`
 * @throws SsrlError ERR_INVALID_ARG naming the option, what was expected and what came
 */
export function resolveSampling(options: SamplingOptions, where = ''): ResolvedSampling {
  const read = <K extends keyof ResolvedSampling>(name: K): ResolvedSampling[K] =>
    (options[name] === undefined ? samplingDefaults[name] : options[name]) as ResolvedSampling[K]
  const resolved: ResolvedSampling = {
    temperature: read('temperature'),
    topP: read('topP'),
    topK: read('topK'),
    minP: read('minP'),
    maxNewTokens: read('maxNewTokens'),
    stop: read('stop'),
    ignoreEnd: read('ignoreEnd'),
  }
  const { temperature, topP, topK, minP, maxNewTokens, stop, ignoreEnd } = resolved
  expect(
    isReal(temperature) && temperature >= 0,
    'a number of at least 0',
    `${where}temperature`,
    temperature,
  )
  expect(isReal(topP) && topP > 0 && topP <= 1, 'a number above 0 and at most 1', `${where}topP`, topP)
  expect(isIndex(topK), 'an integer of at least 0', `${where}topK`, topK)
  expect(isReal(minP) && minP >= 0 && minP <= 1, 'a number from 0 to 1', `${where}minP`, minP)
  expect(
    isIndex(maxNewTokens) && maxNewTokens > 0,
    'an integer of at least 1',
    `${where}maxNewTokens`,
    maxNewTokens,
  )
  expect(isStops(stop), 'a list of strings that are not empty', `${where}stop`, stop)
  expect(typeof ignoreEnd === 'boolean', 'a boolean', `${where}ignoreEnd`, ignoreEnd)
  return resolved
}

/** @throws SsrlError ERR_INVALID_ARG unless `holds` */
export function expect(holds: boolean, expected: string, name: string, received: unknown): asserts holds {
  if (holds) return
  throw new SsrlError('ERR_INVALID_ARG', `Expected ${expected} for ${name} but received ${show(received)}`)
}

/** A value for a message: short, and never an error of its own. */
export function show(value: unknown): string {
  if (typeof value === 'string') return `'${value.length > 60 ? `${value.slice(0, 60)}…` : value}'`
  if (typeof value === 'function') return 'a function'
  if (typeof value === 'symbol') return 'a symbol'
  if (typeof value !== 'object' || value === null) return String(value)
  if (Array.isArray(value)) return 'an array'
  const name = Object.getPrototypeOf(value)?.constructor?.name
  return typeof name === 'string' && name !== 'Object' ? `an object of class ${name}` : 'an object'
}

/** @throws SsrlError ERR_INVALID_ARG naming the first key that is none of `known` */
export function refuseUnknown(object: object, known: readonly string[], where: string): void {
  const unknown = Object.keys(object).find((key) => !known.includes(key))
  if (unknown === undefined) return
  throw new SsrlError('ERR_INVALID_ARG', `Unknown ${where} '${unknown}': expected one of ${known.join(', ')}`)
}

function isReal(value: unknown): value is number {
  return Number.isFinite(value)
}

function isIndex(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= mostInt
}

function isStops(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((stop) => typeof stop === 'string' && stop !== '')
}

/** The seed as an unsigned 64-bit integer; a random one where none is given. */
export function resolveSeed(seed: number | bigint | undefined, where = ''): bigint {
  if (seed === undefined) return randomBytes(8).readBigUInt64LE()
  const isInteger = typeof seed === 'bigint' || Number.isSafeInteger(seed)
  expect(isInteger && seed >= 0 && BigInt(seed) < seedLimit, 'an integer in [0, 2^64)', `${where}seed`, seed)
  return BigInt(seed)
}

/** The seed of request `index` where it has none of its own: SplitMix64 (Steele et al. 2014) at that place of the stream. */
export function requestSeed(seed: bigint, index: number): bigint {
  const wrap = (value: bigint) => BigInt.asUintN(64, value)
  let z = wrap(seed + 0x9e3779b97f4a7c15n * BigInt(index + 1))
  z = wrap((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n)
  z = wrap((z ^ (z >> 27n)) * 0x94d049bb133111ebn)
  return z ^ (z >> 31n)
}

const utf8 = new TextEncoder()

/** What the addon wants to know of a request, but for its tokens. */
export function nativeSampling(
  sampling: ResolvedSampling,
  seed: bigint,
): Omit<NativeGenerateRequest, 'tokens' | 'n'> {
  const { stop, ...rest } = sampling
  return {
    ...rest,
    stop: stop.map((text) => utf8.encode(text)),
    seedHigh: Number(seed >> 32n),
    seedLow: Number(seed & 0xffffffffn),
    firstSample: 0,
  }
}
