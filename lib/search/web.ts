/** Web search. Keys come from the environment only; no message and no record holds one. */
import { z } from 'zod'
import { SsrlError } from '../errors.ts'
import { fetchJson } from './fetch-json.ts'
import { checkAddress } from './http.ts'
import type { SearchDocument, SearchProvider } from './provider.ts'

const serperReply = z.object({
  organic: z.array(
    z.object({ title: z.string().optional(), snippet: z.string().optional(), link: z.string().optional() }),
  ),
})

/**
 * Google's results by Serper; the key is the environment's SERPER_API_KEY.
 * @throws SsrlError `ERR_INVALID_CONFIG` where it is missing
 */
export function serperProvider({ url = 'https://google.serper.dev' }: { url?: string } = {}): SearchProvider {
  const key = process.env.SERPER_API_KEY
  if (!key) {
    throw new SsrlError(
      'ERR_INVALID_CONFIG',
      'Expected a key in the environment variable SERPER_API_KEY but found none',
    )
  }
  const address = `${checkAddress(url).href.replace(/\/+$/, '')}/search`
  return oneByOne('serper', async (query, topK, signal) => {
    const answer = await fetchJson({
      url: address,
      body: { q: query, num: topK },
      headers: { 'x-api-key': key },
      secret: key,
      signal,
    })
    const parsed = serperReply.safeParse(answer)
    if (!parsed.success) throw anotherShape('serper', '{ organic: [{ title, snippet }] }')
    return parsed.data.organic.map(({ title, snippet, link }) => ({
      ...(link ? { id: link } : {}),
      ...(title ? { title } : {}),
      text: snippet ?? '',
    }))
  })
}

const searxngReply = z.object({
  results: z.array(
    z.object({ title: z.string().nullish(), content: z.string().nullish(), url: z.string().nullish() }),
  ),
})

/** A SearXNG server whose settings allow the format `json`. */
export function searxngProvider({ url }: { url: string }): SearchProvider {
  const base = checkAddress(url).href.replace(/\/+$/, '')
  const name = `searxng ${base}`
  return oneByOne(name, async (query, _, signal) => {
    const parameters = new URLSearchParams({ q: query, format: 'json' })
    const parsed = searxngReply.safeParse(await fetchJson({ url: `${base}/search?${parameters}`, signal }))
    if (!parsed.success) throw anotherShape(name, '{ results: [{ title, content, url }] }')
    return parsed.data.results.map(({ title, content, url: link }) => ({
      ...(link ? { id: link } : {}),
      ...(title ? { title } : {}),
      text: content ?? '',
    }))
  })
}

/** These engines take one query a request; the desk sends as many at once as it may. */
function oneByOne(
  name: string,
  search: (query: string, topK: number, signal: AbortSignal) => Promise<SearchDocument[]>,
): SearchProvider {
  return {
    name,
    batchSize: 1,
    search: (queries, { topK, signal }) =>
      Promise.all(
        queries.map(async (query) => {
          const found = await search(query, topK, signal)
          return { documents: found.filter(({ text }) => text !== '').slice(0, topK) }
        }),
      ),
  }
}

function anotherShape(name: string, expected: string): SsrlError {
  return new SsrlError('ERR_SEARCH', `Expected ${expected} from ${name} but received another shape`)
}
