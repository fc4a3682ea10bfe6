/** Who answers a search, and how. */
import { providerSpelling } from '../../search/provider-spelling.ts'
import { scheduleNames } from '../../search/schedule.ts'
import { choice, flag, integer, number, optional, text } from './kinds.ts'
import { ssrl } from './setting.ts'

export const searchSettings = {
  searchSchedule: ssrl(
    choice(...scheduleNames),
    'self',
    'Who answers a search: the policy itself (self), the provider (real), the provider the first realSearches times (first), where the query is less certain than the one before (entropy), with a probability that changes over the run (curriculum), or the provider with a message for actions that are none (multi-turn, Search-R1)',
    { trl: 'no such setting in TRL' },
  ),
  searchProvider: ssrl(
    optional(text(providerSpelling)),
    null,
    `The provider: ${providerSpelling}; null: the one that the program passes`,
  ),
  realSearches: ssrl(integer({ min: 0 }), 1, 'Schedule first: searches of a trajectory that are real (K)'),
  realShareStart: ssrl(
    number({ min: 0, max: 1 }),
    0,
    'Schedule curriculum: share of real answers at the first step',
  ),
  realShareEnd: ssrl(
    number({ min: 0, max: 1 }),
    1,
    'Schedule curriculum: share of real answers at the last step',
  ),
  maxSearches: ssrl(
    optional(integer({ min: 0 })),
    null,
    'Searches of a trajectory; a further one ends it. null: no limit, and 4 with multi-turn, where actions that are none count too',
  ),
  searchTopK: ssrl(integer({ min: 1 }), 3, 'Documents for a query'),
  maxDocumentTokens: ssrl(
    integer({ min: 1 }),
    200,
    'Tokens of one document at most; Search-R1: 500 for all of them',
  ),
  documentLayout: ssrl(
    choice('numbered', 'plain'),
    'numbered',
    'How documents stand in their block: Doc 1(Title: …) text, with empty lines around the block, or the texts alone',
  ),
  searchFailure: ssrl(
    choice('self', 'empty', 'fail'),
    'self',
    'Where the provider fails: the policy answers itself, the block stays empty, or the step fails',
  ),
  searchTimeout: ssrl(number({ above: 0 }), 10, 'Seconds that one call of the provider may take', {
    free: true,
  }),
  searchAttempts: ssrl(integer({ min: 1 }), 4, 'Calls of the provider before a search has failed', {
    free: true,
  }),
  searchConcurrency: ssrl(integer({ min: 1 }), 8, 'Calls of the provider under way at once', { free: true }),
  searchCache: ssrl(
    optional(text('a file')),
    null,
    'SQLite file that answers are remembered in; null: none',
    { free: true },
  ),
  searchCacheMode: ssrl(
    choice('record', 'replay'),
    'record',
    'record: ask for what the cache lacks, and remember it; replay: the cache alone answers',
    { free: true },
  ),
  noiseStart: ssrl(
    number({ min: 0, max: 1 }),
    0,
    'Provider policy: probability of noisy documents before the first step (ZeroSearch)',
  ),
  noiseEnd: ssrl(number({ min: 0, max: 1 }), 0.5, 'Provider policy: the same at the last step'),
  leakAnswer: ssrl(
    flag(),
    false,
    "Provider policy: put question and golden answers into its prompt, as ZeroSearch's code does",
  ),
} as const
