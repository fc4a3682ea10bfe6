import { z } from 'zod'
import { SsrlError } from '../errors.ts'
import { fetchJson } from './fetch-json.ts'
import type { SearchDocument, SearchProvider } from './provider.ts'

export interface HttpProviderOptions {
  /** Address of the server, with or without `/retrieve` at its end. */
  url: string
}

const document = z
  .object({
    id: z.union([z.string(), z.number()]).optional(),
    title: z.string().optional(),
    text: z.string().optional(),
    contents: z.string().optional(),
  })
  .refine(({ text, contents }) => text !== undefined || contents !== undefined)
const scored = z.object({ document, score: z.number().optional() })
const reply = z.object({ result: z.array(z.array(z.union([scored, document]))) })

/**
 * A server that speaks the `/retrieve` protocol of Search-R1 (arXiv 2503.09516): POST { queries, topk, return_scores },
 * one list of documents a query. `ssrl retrieve` is one.
 */
export function httpProvider({ url }: HttpProviderOptions): SearchProvider {
  const address = retrieveAddress(url)
  return {
    name: `http ${address}`,
    search: async (queries, { topK, signal }) => {
      const body = { queries, topk: topK, return_scores: true }
      const parsed = reply.safeParse(await fetchJson({ url: address, body, signal }))
      if (!parsed.success) {
        throw new SsrlError(
          'ERR_SEARCH',
          `Expected { result: [[{ document: { contents }, score }]] } from ${address} but received another shape`,
        )
      }
      return parsed.data.result.map((list) => ({ documents: list.map(toDocument) }))
    },
  }
}

/** @throws SsrlError `ERR_INVALID_CONFIG` for what is no http address */
export function checkAddress(url: string): URL {
  try {
    const parsed = new URL(url)
    if (parsed.protocol === 'http:' || parsed.protocol === 'https:') return parsed
  } catch {
    // told below
  }
  throw new SsrlError(
    'ERR_INVALID_CONFIG',
    `Expected an address such as http://localhost:8000 but received ${JSON.stringify(url)}`,
  )
}

function retrieveAddress(url: string): string {
  const address = checkAddress(url).href.replace(/\/+$/, '')
  return address.endsWith('/retrieve') ? address : `${address}/retrieve`
}

function toDocument(item: z.infer<typeof scored> | z.infer<typeof document>): SearchDocument {
  const { document: found, score } = 'document' in item ? item : { document: item, score: undefined }
  const { title, text } = splitContents(found.contents ?? found.text ?? '')
  return {
    ...(found.id === undefined ? {} : { id: String(found.id) }),
    ...((found.title ?? title) === undefined ? {} : { title: found.title ?? title }),
    text,
    ...(score === undefined ? {} : { score }),
  }
}

/** `"Title"`, a newline and the text, as Search-R1's corpus has them in one field; else all is text. */
export function splitContents(contents: string): { title?: string; text: string } {
  const match = /^"([^\n]*)"\n/.exec(contents)
  return match ? { title: match[1], text: contents.slice(match[0].length) } : { text: contents }
}

/** The same the other way round. */
export function joinContents({ title, text }: SearchDocument): string {
  return title === undefined ? text : `"${title}"\n${text}`
}
