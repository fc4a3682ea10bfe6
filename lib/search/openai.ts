import { z } from 'zod'
import { SsrlError } from '../errors.ts'
import { parseDocuments } from './documents.ts'
import { fetchJson } from './fetch-json.ts'
import { checkAddress } from './http.ts'
import type { SearchProvider } from './provider.ts'

export interface OpenaiProviderOptions {
  /** Base address, as `http://localhost:8000/v1`. */
  url: string
  model: string
  /** Default 0. */
  temperature?: number
  /** Default 400. */
  maxTokens?: number
}

const reply = z.object({
  choices: z.array(z.object({ message: z.object({ content: z.string().nullable() }) })).min(1),
})

/**
 * A language model behind an OpenAI-compatible endpoint writes the documents from what it knows. Its key, where it wants
 * one, is the environment's OPENAI_API_KEY.
 */
export function openaiProvider(options: OpenaiProviderOptions): SearchProvider {
  const { model, temperature = 0, maxTokens = 400 } = options
  const address = `${checkAddress(options.url).href.replace(/\/+$/, '')}/chat/completions`
  const key = process.env.OPENAI_API_KEY
  return {
    name: `openai ${model} at ${address}`,
    // The endpoint takes one query at a time; the desk sends as many requests at once as it may.
    batchSize: 1,
    search: (queries, { topK, signal }) =>
      Promise.all(
        queries.map(async (query) => {
          const messages = [
            { role: 'system', content: instruction(topK) },
            { role: 'user', content: query },
          ]
          const parsed = reply.safeParse(
            await fetchJson({
              url: address,
              body: { model, messages, temperature, max_tokens: maxTokens },
              headers: key ? { authorization: `Bearer ${key}` } : {},
              secret: key,
              signal,
            }),
          )
          if (!parsed.success) {
            throw new SsrlError(
              'ERR_SEARCH',
              `Expected a chat completion from ${address} but received another shape`,
            )
          }
          return { documents: parseDocuments(parsed.data.choices[0]!.message.content ?? '', topK) }
        }),
      ),
  }
}

const instruction = (topK: number) =>
  `You stand in for a search engine. For the query that follows, write the ${topK} best documents that such an engine would ` +
  'find, as far as you know, each of about 30 words and numbered: Doc 1: …, Doc 2: …, and so on. Write nothing else.'
