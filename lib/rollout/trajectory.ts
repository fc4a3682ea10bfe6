/** One sampled completion of one question with everything that rewards, masks and the learner need. */
import { SsrlError } from '../errors.ts'
import { type FormatMode, formatScore } from './format.ts'
import { type Span, TagParser } from './grammar.ts'
import type { SearchRecord } from './search.ts'

/** Who wrote a token. */
export const TokenSource = { prompt: 0, policy: 1, search: 2 } as const

export type FinishReason = 'stop' | 'end' | 'length'

/**
 * A sequence of T tokens. Per-token statistics have T − 1 values: index t belongs to token t + 1; they are 0 where the
 * policy did not sample that token (the prompt, text from a search).
 */
export interface Trajectory {
  questionId: string
  question: string
  goldenAnswers: string[]
  /** Index of the question within the batch: trajectories of one group share it. */
  group: number
  /** Index within the group. */
  sampleIndex: number
  /** `[T]`: prompt and completion, as sampled. */
  tokens: Int32Array
  promptLength: number
  /** `[T - 1]`: log-probabilities under the policy that sampled, full softmax at the sampling temperature. */
  logProbs: Float32Array
  /** `[T - 1]`: entropies of the same distributions, in nats. */
  entropies: Float32Array
  /** `[T]`: `TokenSource` of each token. */
  source: Uint8Array
  /** Blocks of the completion; their token numbers count from the first token after the prompt. */
  spans: Span[]
  /** The decoded completion. Rewards see this and never the prompt. */
  text: string
  /** `[T - promptLength]`: character offset in `text` after each token of the completion. */
  tokenEnds: Int32Array
  /** Content of the last closed `<answer>`, or null. */
  prediction: string | null
  queries: string[]
  searchCount: number
  /** `'length'`: cut off by the token limit. */
  finishReason: FinishReason
  /** Format score in [0, 1]. */
  format: number
  /** What became of each search, where they were answered as they came; none for a completion of one pass. */
  searches: SearchRecord[]
  /** Actions that were neither a search nor an answer, and were told so. */
  invalidActions: number
}

export interface TrajectoryInput {
  questionId: string
  question: string
  goldenAnswers: readonly string[]
  group?: number
  sampleIndex?: number
  promptTokens: Int32Array
  /** `[C]`: the tokens of the completion. */
  completionTokens: Int32Array
  /** `[C]`: text of each of them from a streaming decoder, see `TagParser.push`. */
  pieces: readonly string[]
  /** `[C]`: one value a token of the completion. */
  logProbs: Float32Array
  entropies: Float32Array
  /** `[C]`: who wrote each token of the completion; by default the policy. */
  source?: Uint8Array
  finishReason: FinishReason
  format?: FormatMode
  searches?: SearchRecord[]
  invalidActions?: number
}

/** Assembles a trajectory from one completion. Throws `ERR_INVALID_ARG` when the per-token inputs differ in length. */
export function createTrajectory(input: TrajectoryInput): Trajectory {
  const completionLength = input.completionTokens.length
  requireLength('pieces', input.pieces.length, completionLength)
  requireLength('logProbs', input.logProbs.length, completionLength)
  requireLength('entropies', input.entropies.length, completionLength)
  if (input.source) requireLength('source', input.source.length, completionLength)

  const promptLength = input.promptTokens.length
  if (promptLength === 0) {
    throw new SsrlError(
      'ERR_INVALID_ARG',
      'Expected a prompt of at least one token but received an empty one',
    )
  }
  const tokens = new Int32Array(promptLength + completionLength)
  tokens.set(input.promptTokens)
  tokens.set(input.completionTokens, promptLength)
  const source = new Uint8Array(tokens.length)
  if (input.source) source.set(input.source, promptLength)
  else source.fill(TokenSource.policy, promptLength)

  const parser = new TagParser()
  for (const piece of input.pieces) parser.push(piece)
  const parsed = parser.finish()
  return {
    questionId: input.questionId,
    question: input.question,
    goldenAnswers: [...input.goldenAnswers],
    group: input.group ?? 0,
    sampleIndex: input.sampleIndex ?? 0,
    tokens,
    promptLength,
    logProbs: afterPrompt(input.logProbs, source, promptLength),
    entropies: afterPrompt(input.entropies, source, promptLength),
    source,
    spans: parsed.spans,
    text: parsed.text,
    tokenEnds: parsed.tokenEnds,
    prediction: parsed.answer,
    queries: parsed.queries,
    searchCount: parsed.searchCount,
    finishReason: input.finishReason,
    format: formatScore(parsed, input.format),
    searches: input.searches ?? [],
    invalidActions: input.invalidActions ?? 0,
  }
}

function afterPrompt(values: Float32Array, source: Uint8Array, promptLength: number): Float32Array {
  const out = new Float32Array(source.length - 1)
  for (let token = promptLength; token < source.length; token++) {
    if (source[token] === TokenSource.policy) out[token - 1] = values[token - promptLength]!
  }
  return out
}

function requireLength(name: string, received: number, expected: number): void {
  if (received === expected) return
  throw new SsrlError(
    'ERR_INVALID_ARG',
    `Expected ${name} to have one value per completion token (${expected}) but received ${received}`,
  )
}

/** A trajectory as one line of JSON: what `ssrl score` scores and `loadExamples` trains on, tokens left out. */
export interface TrajectoryRecord {
  id: string
  question: string
  golden_answers: string[]
  response: string
  prediction: string | null
  format: number
  finish_reason: FinishReason
  searches: number
  /** Tokens of the completion. */
  tokens: number
  group: number
  sample: number
  /** Where searches were answered as they came. */
  answered?: SearchRecord[]
}

export function trajectoryRecord(trajectory: Trajectory): TrajectoryRecord {
  return {
    id: trajectory.questionId,
    question: trajectory.question,
    golden_answers: trajectory.goldenAnswers,
    response: trajectory.text,
    prediction: trajectory.prediction,
    format: trajectory.format,
    finish_reason: trajectory.finishReason,
    searches: trajectory.searchCount,
    tokens: trajectory.tokens.length - trajectory.promptLength,
    group: trajectory.group,
    sample: trajectory.sampleIndex,
    ...(trajectory.searches.length > 0 ? { answered: trajectory.searches } : {}),
  }
}
