import { Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { z } from 'zod'
import { joinContents } from './http.ts'
import type { SearchDocument } from './provider.ts'

export interface RetrieveOptions {
  /** Documents for one query. */
  search: (query: string, topK: number) => SearchDocument[]
  /** Bytes of a request; default 1 MiB. */
  maxBodyBytes?: number
}

const request = z.object({
  queries: z.array(z.string()).min(1).max(1024),
  topk: z.int().min(1).max(100).nullish(),
  return_scores: z.boolean().nullish(),
})

/** The server's side of the `/retrieve` protocol of Search-R1. */
export function retrieveApp({ search, maxBodyBytes = 2 ** 20 }: RetrieveOptions): Hono {
  const app = new Hono()
  const tooLong = (c: { json: (value: object, status: 413) => Response }) =>
    c.json({ detail: `Expected a request of at most ${maxBodyBytes} bytes` }, 413)
  app.use(bodyLimit({ maxSize: maxBodyBytes, onError: tooLong }))
  app.post('/retrieve', async (c) => {
    const parsed = request.safeParse(await c.req.json().catch(() => null))
    if (!parsed.success) {
      const problem = parsed.error.issues
        .map(({ path, message }) => `${path.join('.')}: ${message}`)
        .join('; ')
      return c.json({ detail: `Expected { queries: [text], topk?, return_scores? }: ${problem}` }, 422)
    }
    const { queries, topk, return_scores: withScores } = parsed.data
    const result = queries.map((query) =>
      search(query, topk ?? 3).map((found) => {
        const document = { id: found.id, contents: joinContents(found) }
        return withScores ? { document, score: found.score ?? 0 } : document
      }),
    )
    return c.json({ result })
  })
  return app
}
