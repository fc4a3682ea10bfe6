import { setTimeout as sleep } from 'node:timers/promises'
import pRetry from 'p-retry'
import { SsrlError } from '../errors.ts'
import {
  asFailure,
  RetryableSearchError,
  type SearchContext,
  type SearchDocument,
  type SearchOrigin,
  type SearchProvider,
  type SearchResult,
} from './provider.ts'

export interface DeskOptions {
  /** Documents for each query; default 3. */
  topK?: number
  /** Calls of the provider under way at once; default 8. */
  concurrency?: number
  /** Milliseconds for one call; default 10,000. */
  timeout?: number
  /** Tries of one call; default 4. */
  attempts?: number
  /** Milliseconds before the second try, twice as many before each further one; default 250. */
  backoff?: number
}

/** An answer with what it cost. */
export interface AnsweredSearch {
  result: SearchResult
  /** Milliseconds from the question to the answer, waiting included. */
  latency: number
  /** Calls of the provider that were made for it. */
  attempts: number
}

export type DeskContext = Pick<SearchContext, 'signal' | 'step' | 'steps'>

interface Waiting {
  query: string
  origin: SearchOrigin
  context: DeskContext
  asked: number
  resolve: (answered: AnsweredSearch) => void
  reject: (reason: unknown) => void
}

/** Longest pause before another try, in milliseconds, whatever the server asks for. */
const longestPause = 30_000

/**
 * Stands before a provider: queries that come at about the same time go as one call, calls are limited in number and
 * time and tried again where that may help, and what goes wrong in the end is a result. Only an abort rejects.
 */
export class SearchDesk {
  readonly provider: SearchProvider
  readonly #options: Required<DeskOptions>
  #waiting: Waiting[] = []
  #isSending = false
  /** Calls under way. */
  #calls = 0

  constructor(provider: SearchProvider, options: DeskOptions = {}) {
    this.provider = provider
    const { topK = 3, concurrency = 8, timeout = 10_000, attempts = 4, backoff = 250 } = options
    this.#options = { topK, concurrency, timeout, attempts, backoff }
    for (const [name, value] of Object.entries(this.#options)) {
      const isTime = name === 'timeout' || name === 'backoff'
      if (isTime ? Number.isFinite(value) && value > 0 : Number.isInteger(value) && value >= 1) continue
      const kind = isTime ? 'a number of milliseconds above 0' : 'an integer of at least 1'
      throw new SsrlError('ERR_INVALID_CONFIG', `Expected ${kind} for ${name} but received ${value}`)
    }
  }

  ask(query: string, origin: SearchOrigin, context: DeskContext): Promise<AnsweredSearch> {
    return new Promise((resolve, reject) => {
      if (context.signal.aborted) return reject(context.signal.reason)
      // Rows that stop in the same decode step come in the same turn of the event loop.
      if (!this.#isSending) setImmediate(() => this.#send())
      this.#isSending = true
      this.#waiting.push({ query, origin, context, asked: performance.now(), resolve, reject })
    })
  }

  /** As many calls as may be made; what is left over waits, and goes with what comes meanwhile. */
  #send(): void {
    this.#isSending = false
    while (this.#waiting.length > 0 && this.#calls < this.#options.concurrency) {
      this.#calls += 1
      void this.#answer(this.#takeBatch()).finally(() => {
        this.#calls -= 1
        this.#send()
      })
    }
  }

  /** A call has one signal and one step. */
  #takeBatch(): Waiting[] {
    const size = this.provider.batchSize ?? 64
    const { signal, step } = this.#waiting[0]!.context
    const batch: Waiting[] = []
    this.#waiting = this.#waiting.filter((waiting) => {
      const { context } = waiting
      const fits = batch.length < size && context.signal === signal && context.step === step
      if (fits) batch.push(waiting)
      return !fits
    })
    return batch
  }

  async #answer(batch: readonly Waiting[]): Promise<void> {
    const { context } = batch[0]!
    let attempts = 0
    let results: SearchResult[]
    try {
      results = await pRetry(
        () => {
          attempts += 1
          return this.#callOnce(batch)
        },
        {
          retries: this.#options.attempts - 1,
          minTimeout: this.#options.backoff,
          maxTimeout: longestPause,
          factor: 2,
          signal: context.signal,
          shouldRetry: ({ error }) => error instanceof RetryableSearchError,
          onFailedAttempt: async ({ error, retriesLeft }) => {
            if (!(error instanceof RetryableSearchError) || retriesLeft === 0) return
            await sleep(Math.min(error.retryAfter, longestPause), undefined, { signal: context.signal })
          },
        },
      )
    } catch (error) {
      if (context.signal.aborted) {
        for (const { reject } of batch) reject(context.signal.reason)
        return
      }
      results = batch.map(() => ({ failure: asFailure(error) }))
    }
    const now = performance.now()
    for (const [index, { resolve, asked }] of batch.entries()) {
      resolve({ result: results[index]!, latency: now - asked, attempts })
    }
  }

  async #callOnce(batch: readonly Waiting[]): Promise<SearchResult[]> {
    const { context } = batch[0]!
    context.signal.throwIfAborted()
    const { timeout, topK } = this.#options
    const { name } = this.provider
    const limit = new AbortController()
    const signal = AbortSignal.any([context.signal, limit.signal])
    // A provider that does not look at its signal is left behind all the same.
    const gaveUp = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    })
    const late = new RetryableSearchError('ERR_TIMEOUT', `${name} gave no answer within ${timeout} ms`)
    const timer = setTimeout(() => limit.abort(late), timeout)
    try {
      const origins = batch.map(({ origin }) => origin)
      const queries = batch.map(({ query }) => query)
      const call = this.provider.search(queries, { ...context, signal, topK, origins })
      return checkResults(await Promise.race([call, gaveUp]), batch.length, name, topK)
    } catch (error) {
      throw limit.signal.aborted && !context.signal.aborted ? late : error
    } finally {
      clearTimeout(timer)
    }
  }
}

function checkResults(results: unknown, count: number, name: string, topK: number): SearchResult[] {
  if (!Array.isArray(results) || results.length !== count) {
    const received = Array.isArray(results) ? `${results.length}` : typeof results
    throw new SsrlError('ERR_SEARCH', `Expected ${count} results of ${name} but received ${received}`)
  }
  return results.map((result: SearchResult) => {
    if (typeof result !== 'object' || result === null || !('documents' in result))
      return checkOther(result, name)
    const { documents } = result
    const isDocument = (document: unknown) =>
      typeof document === 'object' &&
      document !== null &&
      typeof (document as SearchDocument).text === 'string'
    if (Array.isArray(documents) && documents.every(isDocument)) {
      return { ...result, documents: documents.slice(0, topK) }
    }
    const message = `Expected documents { text, title? } of ${name} but received something else`
    return { failure: { code: 'ERR_SEARCH', message } }
  })
}

function checkOther(result: SearchResult, name: string): SearchResult {
  const isKnown = typeof result === 'object' && result !== null && ('failure' in result || 'self' in result)
  if (isKnown) return result
  const message = `Expected { documents }, { failure } or { self } of ${name} but received ${JSON.stringify(result)}`
  return { failure: { code: 'ERR_SEARCH', message } }
}
