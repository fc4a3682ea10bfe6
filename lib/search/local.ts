import { IndexThread } from './index-thread.ts'
import { asFailure, type SearchProvider, type SearchResult } from './provider.ts'

/** Searches an index that `buildIndex` or `ssrl index` made, on a thread of its own. */
export async function localProvider(directory: string): Promise<SearchProvider> {
  const index = await IndexThread.open(directory)
  return {
    name: `local ${directory} (${index.size} passages)`,
    // Queries are answered one after another: asked together, the first answers would wait for the last.
    batchSize: 1,
    search: (queries, { topK, signal }) =>
      Promise.all(
        queries.map(async (query): Promise<SearchResult> => {
          signal.throwIfAborted()
          return index.search(query, topK).then(
            (documents) => ({ documents }),
            (error) => ({ failure: asFailure(error) }),
          )
        }),
      ),
    close: () => index.close(),
  }
}
