import { SsrlError } from '../errors.ts'
import { createSearch, type Search } from '../rollout/search.ts'
import { cacheProvider } from '../search/cache.ts'
import { createProvider } from '../search/create-provider.ts'
import type { SearchProvider } from '../search/provider.ts'
import type { Config } from './config.ts'

/** The searches of a run, and what it opened for them. */
export interface RunSearch {
  readonly search: Search
  close(): Promise<void>
}

/** @throws SsrlError `ERR_INVALID_CONFIG` unless there is exactly one provider where the schedule asks one, else none */
export function requireProvider(config: Config, own: SearchProvider | undefined): void {
  const { searchSchedule, searchProvider } = config
  if (searchSchedule === 'self' && own !== undefined) {
    refuse("search needs a searchSchedule other than 'self', where nobody is asked")
  }
  if (searchSchedule !== 'self' && (own === undefined) === (searchProvider === null)) {
    const received = own === undefined ? 'neither' : 'both'
    refuse(
      `Expected searchProvider or search for searchSchedule '${searchSchedule}' but received ${received}`,
    )
  }
}

/** Opens the provider of a run; null where the policy answers every search. */
export async function openSearch(
  config: Config,
  own: SearchProvider | undefined,
  signal?: AbortSignal,
): Promise<RunSearch | null> {
  if (config.searchSchedule === 'self') return null
  const provider = own ? await wrap(own, config) : await open(config, signal)
  const search = createSearch({
    provider,
    schedule: config.searchSchedule,
    realSearches: config.realSearches,
    realShareStart: config.realShareStart,
    realShareEnd: config.realShareEnd,
    onFailure: config.searchFailure,
    layout: config.documentLayout,
    maxDocumentTokens: config.maxDocumentTokens,
    maxSearches: config.maxSearches,
    topK: config.searchTopK,
    concurrency: config.searchConcurrency,
    timeout: config.searchTimeout * 1000,
    attempts: config.searchAttempts,
  })
  return { search, close: async () => provider.close?.() }
}

/** The caller's provider, which is not ours to close, with the run's cache around it. */
async function wrap(own: SearchProvider, { searchCache, searchCacheMode }: Config): Promise<SearchProvider> {
  const kept: SearchProvider = { ...own, name: own.name, search: own.search.bind(own), close: undefined }
  if (own.cacheKey) kept.cacheKey = own.cacheKey.bind(own)
  return searchCache === null ? kept : cacheProvider(kept, { file: searchCache, mode: searchCacheMode })
}

function open(config: Config, signal?: AbortSignal): Promise<SearchProvider> {
  const { searchProvider, searchCache, searchCacheMode, noiseStart, noiseEnd, leakAnswer } = config
  return createProvider(searchProvider!, {
    noiseStart,
    noiseEnd,
    leakAnswer,
    cache: searchCache,
    cacheMode: searchCacheMode,
    signal,
  })
}

function refuse(message: string): never {
  throw new SsrlError('ERR_INVALID_CONFIG', message)
}
