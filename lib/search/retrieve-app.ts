import { Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { z } from 'zod'
import { joinContents } from './http.ts'
import type { SearchDocument } from './provider.ts'

export interface RetrieveOptions {
  /** Documents for one query, best first. */
  search: (query: string, topK: number) => SearchDocument[] | Promise<SearchDocument[]>
  /** Documents for a query where a request does not say; default 3. */
  topK?: number
  /** Bytes of a request; default 1 MiB. */
  maxBodyBytes?: number
}

const request = z.object({
  queries: z.array(z.string()).min(1).max(1024),
  topk: z.int().min(1).max(100).nullish(),
  return_scores: z.boolean().nullish(),
})

/**
 * The server's side of the `/retrieve` protocol of Search-R1. What is no request is answered with 400 (no JSON), 404, 405,
 * 413 (too long) or 422 (JSON of another shape), and `{ detail }` says why; a search that fails is a 500.
 */
export function retrieveApp({ search, topK = 3, maxBodyBytes = 2 ** 20 }: RetrieveOptions): Hono {
  const app = new Hono()
  app.use(
    bodyLimit({
      maxSize: maxBodyBytes,
      onError: (c) => c.json({ detail: `Expected a request of at most ${maxBodyBytes} bytes` }, 413),
    }),
  )
  app.post('/retrieve', async (c) => {
    const body = parse(await c.req.text())
    if (body === undefined) return c.json({ detail: `Expected JSON: ${shape}` }, 400)
    const parsed = request.safeParse(body)
    if (!parsed.success) {
      const problems = parsed.error.issues.map(({ path, message }) => [path.join('.'), message])
      const told = problems.map(([place, message]) => (place ? `${place}: ${message}` : message)).join('; ')
      return c.json({ detail: `Expected ${shape}: ${told}` }, 422)
    }
    const { queries, topk, return_scores: withScores } = parsed.data
    const found = await Promise.all(queries.map((query) => search(query, topk ?? topK)))
    const shown = (document: SearchDocument) => describe(document, withScores ?? false)
    return c.json({ result: found.map((documents) => documents.map(shown)) })
  })
  app.all('/retrieve', (c) => c.json({ detail: `Expected POST ${shape}` }, 405))
  app.notFound((c) => c.json({ detail: 'Expected POST /retrieve' }, 404))
  app.onError((error, c) => c.json({ detail: error.message }, 500))
  return app
}

const shape = '{ queries: [text], topk?, return_scores? }'

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function describe(found: SearchDocument, withScores: boolean) {
  const document = { id: found.id, contents: joinContents(found) }
  return withScores ? { document, score: found.score ?? 0 } : document
}
