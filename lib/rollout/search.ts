/** What a rollout needs to know about searches: who answers them, and how an answer is put into the text. */
import { SsrlError } from '../errors.ts'
import { type DeskOptions, SearchDesk } from '../search/desk.ts'
import type { SearchFailure, SearchProvider } from '../search/provider.ts'
import type { DocumentLayout } from '../search/sanitize.ts'
import { createSchedule, type Schedule, type ScheduleName, type ScheduleOptions } from '../search/schedule.ts'

/** What happens where a provider fails: the policy answers itself, the answer is empty, or the rollout fails. */
export type FailurePolicy = 'self' | 'empty' | 'fail'

export interface SearchOptions extends DeskOptions, ScheduleOptions {
  /** Answers what the schedule calls real. */
  provider: SearchProvider
  /** Default `'real'`; or a function of one's own. */
  schedule?: ScheduleName | Schedule
  /** Default `'self'`. */
  onFailure?: FailurePolicy
  /** Default `'numbered'`. */
  layout?: DocumentLayout
  /** Tokens of one document at most; default 200. */
  maxDocumentTokens?: number
  /**
   * Searches of one trajectory at most; a further one ends it. With `multi-turn` actions that are none count too. Default:
   * no limit, and 4 with `multi-turn`.
   */
  maxSearches?: number | null
}

/** A `SearchOptions` that was checked, with its desk; made once and used for many rollouts. */
export interface Search {
  readonly desk: SearchDesk
  readonly schedule: Schedule
  readonly onFailure: FailurePolicy
  readonly layout: DocumentLayout
  readonly maxDocumentTokens: number
  readonly maxSearches: number
  /** Whether an action that is neither a search nor an answer gets a message and another try. */
  readonly answersInvalidActions: boolean
}

/** @throws SsrlError `ERR_INVALID_CONFIG` */
export function createSearch(options: SearchOptions): Search {
  const { provider, schedule = 'real', onFailure = 'self', layout = 'numbered' } = options
  if (typeof provider?.search !== 'function') {
    refuse('a search provider ({ name, search })', 'provider', provider)
  }
  if (!['self', 'empty', 'fail'].includes(onFailure))
    refuse("'self', 'empty' or 'fail'", 'onFailure', onFailure)
  if (!['numbered', 'plain'].includes(layout)) refuse("'numbered' or 'plain'", 'layout', layout)
  const isMultiTurn = schedule === 'multi-turn'
  const { maxDocumentTokens = 200, maxSearches = null } = options
  if (!(Number.isInteger(maxDocumentTokens) && maxDocumentTokens >= 1)) {
    refuse('an integer of at least 1', 'maxDocumentTokens', maxDocumentTokens)
  }
  if (maxSearches !== null && !(Number.isInteger(maxSearches) && maxSearches >= 0)) {
    refuse('an integer of at least 0, or null', 'maxSearches', maxSearches)
  }
  const { topK, concurrency, timeout, attempts, backoff } = options
  return {
    desk: new SearchDesk(provider, { topK, concurrency, timeout, attempts, backoff }),
    schedule: typeof schedule === 'function' ? schedule : createSchedule(schedule, options),
    onFailure,
    layout,
    maxDocumentTokens,
    maxSearches: maxSearches ?? (isMultiTurn ? searchR1Turns : Number.POSITIVE_INFINITY),
    answersInvalidActions: isMultiTurn,
  }
}

/** Search-R1's own limit. */
const searchR1Turns = 4

function refuse(expected: string, name: string, received: unknown): never {
  throw new SsrlError(
    'ERR_INVALID_CONFIG',
    `Expected ${expected} for ${name} but received ${JSON.stringify(received) ?? String(received)}`,
  )
}

/** What became of one search of a trajectory. */
export interface SearchRecord {
  /** 0 for the first search of the trajectory. */
  turn: number
  query: string
  /**
   * `self`: the policy answered, as scheduled; `documents`: the provider did; `failure`: it could not; `blank`: there was
   * no query to ask with.
   */
  outcome: 'self' | 'documents' | 'failure' | 'blank'
  /** Name of the provider that was asked; null where none was. */
  provider: string | null
  failure: SearchFailure | null
  /** The answer came from a cache. */
  cached: boolean
  documents: number
  /** Tokens that were put into the text. */
  tokens: number
  /** Milliseconds until the answer. */
  latency: number
  /** Calls of the provider that were made. */
  attempts: number
}
