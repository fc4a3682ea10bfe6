import { setMaxListeners } from 'node:events'
import pLimit from 'p-limit'
import { SsrlError } from '../errors.ts'
import type { Policy } from '../policy/policy.ts'
import { Session } from '../policy/session.ts'
import { derivedSeed } from '../random-seed.ts'
import type { Search } from './search.ts'
import { runRow, type WrittenRow } from './search-row.ts'
import type { EncodedQuestion, SelfSearchOptions } from './self-search.ts'

/** Trajectories under way at once, those that wait for a search too: as many as the generator decodes together. */
const rowsAtOnce = 256

/**
 * Runs every sample of every question as a session of its own; the samples of a question share its prompt. What waits for
 * a search holds nobody up: the others go on together. The first failure ends all.
 */
export async function runSearchRows(
  policy: Policy,
  questions: readonly EncodedQuestion[],
  options: SelfSearchOptions & { search: Search },
  {
    take,
    signal,
  }: { take: (question: number, sample: number, row: WrittenRow) => void; signal: AbortSignal },
): Promise<void> {
  const { n = 1, temperature = 1, topP = 1, topK = 0, minP = 0, maxNewTokens = 256, seed = 0 } = options
  if (!Number.isInteger(n) || n < 1) {
    throw new SsrlError('ERR_INVALID_ARG', `Expected an integer of at least 1 for n but received ${n}`)
  }
  const failed = new AbortController()
  const stop = AbortSignal.any([signal, failed.signal])
  // Every row listens to it, and Node would warn of a leak.
  setMaxListeners(0, stop)
  const limit = pLimit(rowsAtOnce)
  const jobs = questions.flatMap(({ question, promptTokens }, index) => {
    const prompt = new SharedPrompt(policy, promptTokens, n)
    return Array.from({ length: n }, (_, sampleIndex) =>
      limit(async () => {
        const session = await prompt.session(stop)
        const row = await runRow({
          policy,
          session,
          question,
          sampleIndex,
          seed: derivedSeed(seed, index),
          sampling: { temperature, topP, topK, minP },
          maxNewTokens,
          stopAtAnswer: options.stopAtAnswer ?? true,
          search: options.search,
          step: options.step ?? 0,
          steps: options.steps ?? 0,
          signal: stop,
        })
        take(index, sampleIndex, row)
      }).catch((error: unknown) => {
        failed.abort(error)
        throw error
      }),
    )
  })
  const outcomes = await Promise.allSettled(jobs)
  signal.throwIfAborted()
  if (failed.signal.aborted) throw failed.signal.reason
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
}

/** A prompt that is computed once, when the first of its n samples begins, and let go with the last. */
class SharedPrompt {
  readonly #policy: Policy
  readonly #tokens: Int32Array
  #base: Promise<Session> | null = null
  #left: number

  constructor(policy: Policy, tokens: Int32Array, n: number) {
    this.#policy = policy
    this.#tokens = tokens
    this.#left = n
  }

  async session(signal: AbortSignal): Promise<Session> {
    const isLast = --this.#left === 0
    if (!signal.aborted) this.#base ??= Session.open(this.#policy, this.#tokens)
    const base = await this.#base
    try {
      signal.throwIfAborted()
      return (await base!.fork(1))[0]!
    } finally {
      if (isLast) base?.close()
    }
  }
}
