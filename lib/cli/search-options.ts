import { type Command, Option } from 'commander'
import type { Search } from '../rollout/search.ts'
import { providerSpelling } from '../search/provider-spelling.ts'
import type { DocumentLayout } from '../search/sanitize.ts'
import type { ScheduleName } from '../search/schedule.ts'
import { integer } from './common.ts'

/** What `addSearchOptions` puts into a command's options. */
export interface SearchFlags {
  search?: string
  schedule: ScheduleName
  realSearches: number
  documents: number
  layout: DocumentLayout
  maxSearches?: number
}

/** Adds --search and what belongs to it. */
export function addSearchOptions(command: Command, what: string, initial?: string): Command {
  return command
    .option('--search <provider>', `${what}: ${providerSpelling}`, initial)
    .addOption(
      new Option('--schedule <name>', 'which searches --search answers; the policy answers the others')
        .choices(['real', 'first', 'entropy', 'multi-turn'])
        .default('real'),
    )
    .option('--real-searches <k>', 'with --schedule first: so many', integer({ min: 1 }), 1)
    .option('--documents <n>', 'documents for a search', integer({ min: 1 }), 3)
    .addOption(
      new Option('--layout <name>', 'how documents stand in their block')
        .choices(['numbered', 'plain'])
        .default('numbered'),
    )
    .option('--max-searches <n>', 'a further search ends the answer (default: no limit)', integer({ min: 0 }))
}

/** The searches that flags ask for; the caller closes them. */
export async function openSearch(
  flags: SearchFlags & { search: string },
  signal: AbortSignal,
): Promise<{ search: Search; close: () => Promise<void> }> {
  const { createProvider } = await import('../search/create-provider.ts')
  const { createSearch } = await import('../rollout/search.ts')
  const provider = await createProvider(flags.search, { signal })
  const search = createSearch({
    provider,
    schedule: flags.search === 'self' ? 'self' : flags.schedule,
    realSearches: flags.realSearches,
    topK: flags.documents,
    layout: flags.layout,
    maxSearches: flags.maxSearches ?? null,
  })
  return { search, close: async () => provider.close?.() }
}
