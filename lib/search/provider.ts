/** The one interface of everything that can answer a search. */
import { SsrlError, type SsrlErrorCode } from '../errors.ts'

/** What a search found: data that nobody vouches for. */
export interface SearchDocument {
  id?: string
  title?: string
  text: string
  /** Larger is better. */
  score?: number
}

export interface SearchFailure {
  code: SsrlErrorCode
  message: string
}

/**
 * The answer to one query: documents, best first (none is an answer too), a failure, or `self`: the policy goes on and
 * writes the information itself.
 */
export type SearchResult =
  | { documents: SearchDocument[]; cached?: boolean }
  | { failure: SearchFailure; cached?: boolean }
  | { self: true }

/** Where a query comes from. */
export interface SearchOrigin {
  questionId: string
  question: string
  /** Only for providers that are told to look at them. */
  goldenAnswers: readonly string[]
  /** 0 for the first search of a trajectory. */
  turn: number
  /** Depends on run, step, question, sample and turn: a provider that draws, draws from this. */
  seed: number
}

export interface SearchContext {
  signal: AbortSignal
  /** Documents wanted for each query. */
  topK: number
  /** The run's step, from 1, and its number of steps; 0 of 0 outside of training. */
  step: number
  steps: number
  /** [queries] */
  origins: readonly SearchOrigin[]
}

export interface SearchProvider {
  /** For records, and part of a cache's key: another engine or index has another name. */
  readonly name: string
  /** Queries in one call at most; default 64. */
  readonly batchSize?: number
  /**
   * One result a query, in their order. What concerns the whole call is thrown: a `RetryableSearchError` is worth another
   * try, anything else is not.
   */
  search(queries: readonly string[], context: SearchContext): Promise<SearchResult[]>
  /** What the answer depends on beside the query and `topK`, for a cache; default nothing. */
  cacheKey?(origin: SearchOrigin, context: Pick<SearchContext, 'step' | 'steps'>): string
  close?(): void | Promise<void>
}

/** A failure that may pass: the server is busy, or could not be reached. */
export class RetryableSearchError extends SsrlError {
  /** Milliseconds that the server asked to be left alone. */
  readonly retryAfter: number

  constructor(code: SsrlErrorCode, message: string, options: { cause?: unknown; retryAfter?: number } = {}) {
    super(code, message, { cause: options.cause })
    this.retryAfter = options.retryAfter ?? 0
  }
}

/** The policy answers its own searches (SSRL, arXiv 2508.10874). */
export const selfProvider: SearchProvider = {
  name: 'self',
  search: async (queries) => queries.map(() => ({ self: true })),
}

export function asFailure(error: unknown): SearchFailure {
  if (error instanceof SsrlError) return { code: error.code, message: error.message }
  return { code: 'ERR_SEARCH', message: error instanceof Error ? error.message : String(error) }
}
