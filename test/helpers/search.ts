import type { AnsweredSearch } from '../../lib/search/desk.ts'
import type { SearchContext, SearchOrigin, SearchResult } from '../../lib/search/provider.ts'

export const someOrigin: SearchOrigin = {
  questionId: 'q',
  question: 'Q?',
  goldenAnswers: [],
  turn: 0,
  seed: 1,
}

/** A context for `count` queries. */
export function searchContext(count: number, rest: Partial<SearchContext> = {}): SearchContext {
  const origins = Array.from({ length: count }, (_, index) => ({ ...someOrigin, questionId: `q${index}` }))
  return { signal: new AbortController().signal, topK: 3, step: 0, steps: 0, origins, ...rest }
}

export const failureOf = (found: SearchResult | AnsweredSearch | undefined) => {
  const result = found && 'result' in found ? found.result : found
  return result && 'failure' in result ? result.failure : null
}

export const textsOf = (result: SearchResult | undefined): string[] =>
  result && 'documents' in result ? result.documents.map(({ text }) => text) : []
