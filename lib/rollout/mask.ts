/** Which tokens are trained, and how much: a function of who wrote a token and of the block that it stands in. */
import { SsrlError } from '../errors.ts'
import type { Span } from './grammar.ts'
import { TokenSource, type Trajectory } from './trajectory.ts'

/**
 * What is kept out of loss, KL, entropy and statistics. `'information'`: closed blocks that answer a search; `'all'`:
 * every information block, wherever it was opened, closed or not; `'none'`: nothing; `{ weight }`: closed blocks that
 * answer a search count with this weight (0 is `'information'`, 1 is `'none'`). Text from a real search is never trained
 * on, whatever is set.
 */
export type InformationMask = 'information' | 'all' | 'none' | { weight: number }

/** `[tokenCount]` weights of the tokens of a completion by its blocks alone: 1 outside of masked blocks. */
export function informationWeights(
  spans: readonly Span[],
  tokenCount: number,
  mask: InformationMask = 'information',
): Float32Array {
  const weights = new Float32Array(tokenCount).fill(1)
  const masked = maskedWeight(mask)
  if (mask === 'none') return weights
  for (const span of spans) {
    const isInformation = span.answersSearch && span.closed
    if (span.kind !== 'information' || !(isInformation || mask === 'all')) continue
    weights.fill(masked, span.tokenStart, span.tokenEnd)
  }
  return weights
}

/** `[T - 1]` weights for the learner: index t belongs to token t + 1; 0 for the prompt and for text from a search. */
export function lossWeights(trajectory: Trajectory, mask: InformationMask = 'information'): Float32Array {
  const { promptLength, source, spans, tokens } = trajectory
  const completion = informationWeights(spans, tokens.length - promptLength, mask)
  const weights = new Float32Array(tokens.length - 1)
  for (let token = promptLength; token < tokens.length; token++) {
    if (source[token] === TokenSource.policy) weights[token - 1] = completion[token - promptLength]!
  }
  return weights
}

/** `[T - 1]`: 1 where `lossWeights` is above 0. */
export function lossMask(trajectory: Trajectory, mask: InformationMask = 'information'): Uint8Array {
  return Uint8Array.from(lossWeights(trajectory, mask), (weight) => (weight > 0 ? 1 : 0))
}

function maskedWeight(mask: InformationMask): number {
  if (mask === 'information' || mask === 'all' || mask === 'none') return 0
  const weight = (mask as { weight?: unknown } | null)?.weight
  if (typeof weight === 'number' && Number.isFinite(weight) && weight >= 0) return weight
  throw new SsrlError(
    'ERR_INVALID_CONFIG',
    `Expected informationMask to be 'information', 'all', 'none' or { weight } with a weight of at least 0 but received ${JSON.stringify(mask)}`,
  )
}
