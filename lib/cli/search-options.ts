import { type Command, Option } from 'commander'
import { SsrlError } from '../errors.ts'
import type { Search } from '../rollout/search.ts'
import type { SearchProvider } from '../search/provider.ts'
import { providerSpelling } from '../search/provider-spelling.ts'
import type { DocumentLayout } from '../search/sanitize.ts'
import type { ScheduleName } from '../search/schedule.ts'
import { integer } from './common.ts'

/** What `addSearchOptions` puts into a command's options. */
export interface SearchFlags {
  search?: string
  searchSchedule?: ScheduleName
  realSearches?: number
  searchTopK?: number
  maxDocumentTokens?: number
  documentLayout?: DocumentLayout
  maxSearches?: number
}

/** Adds --search and what belongs to it, under the names that the settings of training have. */
export function addSearchOptions(command: Command, what: string, initial?: string): Command {
  command
    .option('--search <provider>', `${what}: ${providerSpelling}`, initial)
    .addOption(
      new Option(
        '--search-schedule <name>',
        'which searches --search answers; the policy answers the others (default: real)',
      ).choices(['real', 'first', 'entropy', 'multi-turn']),
    )
    .option('--real-searches <k>', 'with --search-schedule first: so many (default: 1)', integer({ min: 1 }))
  return addDocumentOptions(command).option(
    '--max-searches <n>',
    'a further search ends the answer (default: no limit)',
    integer({ min: 0 }),
  )
}

/** Adds what says which documents are shown, and how. */
export function addDocumentOptions(command: Command): Command {
  return command
    .option('--search-top-k <k>', 'documents for a query (default: 3)', integer({ min: 1 }))
    .option('--max-document-tokens <n>', 'tokens of one document (default: 200)', integer({ min: 1 }))
    .addOption(
      new Option('--document-layout <layout>', 'how documents are shown (default: numbered)').choices([
        'numbered',
        'plain',
      ]),
    )
}

/** The searches that flags ask for. */
export interface OpenedSearch {
  search: Search
  provider: SearchProvider
}

const details = [
  'searchSchedule',
  'realSearches',
  'searchTopK',
  'maxDocumentTokens',
  'documentLayout',
  'maxSearches',
] as const

/**
 * Null without --search; else the caller closes the provider.
 * @throws SsrlError `ERR_INVALID_ARG` where something is said of searches that nobody from outside answers
 */
export async function openSearch(flags: SearchFlags, signal?: AbortSignal): Promise<OpenedSearch | null> {
  const isSelf = flags.search === 'self'
  // A policy that answers itself can be limited, too.
  const said = details.find((name) => flags[name] !== undefined && !(isSelf && name === 'maxSearches'))
  if ((flags.search === undefined || isSelf) && said !== undefined) {
    throw new SsrlError('ERR_INVALID_ARG', `Expected --search, and another than self, beside ${said}`)
  }
  if (flags.search === undefined) return null
  const { searchSchedule: schedule, realSearches, searchTopK: topK, documentLayout: layout } = flags
  if (realSearches !== undefined && schedule !== 'first') {
    throw new SsrlError('ERR_INVALID_ARG', 'Expected --search-schedule first beside realSearches')
  }
  const { createProvider } = await import('../search/create-provider.ts')
  const { createSearch } = await import('../rollout/search.ts')
  const provider = await createProvider(flags.search, { signal })
  const { maxDocumentTokens, maxSearches } = flags
  const by = isSelf ? 'self' : schedule
  const options = { schedule: by, realSearches, topK, layout, maxDocumentTokens, maxSearches }
  return { search: createSearch({ provider, ...options }), provider }
}

/** Flags without those of searches, for what takes the others as they are. */
export function withoutSearch<T extends SearchFlags>(flags: T): Omit<T, keyof SearchFlags> {
  const rest: Partial<T> = { ...flags }
  for (const name of ['search', ...details] as const) delete rest[name]
  return rest as Omit<T, keyof SearchFlags>
}
