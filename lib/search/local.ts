import { inTurns } from '../in-turns.ts'
import { LocalIndex } from './local-index.ts'
import type { SearchProvider } from './provider.ts'

/** Searches an index that `buildIndex` or `ssrl index` made. */
export async function localProvider(directory: string): Promise<SearchProvider> {
  const index = await LocalIndex.open(directory)
  return {
    name: `local ${directory} (${index.size} passages)`,
    search: async (queries, { topK, signal }) =>
      inTurns(queries, (query) => ({ documents: index.search(query, topK) }), signal),
    close: () => index.close(),
  }
}
