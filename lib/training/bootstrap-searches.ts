/**
 * Demonstrations for a cold start before training with real searches: a policy that has seen no documents where they
 * will stand writes neither thought nor answer after them. A template writes around what a provider finds.
 */
import type { Question } from '../data/questions.ts'
import { SsrlError } from '../errors.ts'
import type { Tokenizer } from '../policy/tokenizer.ts'
import { derivedSeed } from '../random-seed.ts'
import { coverExactMatchScore } from '../rewards/answers.ts'
import { formatScore } from '../rollout/format.ts'
import { type DeskOptions, SearchDesk } from '../search/desk.ts'
import type { SearchDocument, SearchProvider } from '../search/provider.ts'
import { type DocumentLayout, informationBlock } from '../search/sanitize.ts'
import { bootstrapFromTemplate, type Demonstration, templateQuery } from './bootstrap.ts'

export interface SearchedBootstrapOptions extends DeskOptions {
  questions: readonly Question[]
  /** Answers one search a question. */
  provider: SearchProvider
  /** Of the policy that is to learn: documents are cut between two of its tokens. */
  tokenizer: Tokenizer
  /** Tokens of one document at most; default 200. */
  maxDocumentTokens?: number
  /** Default 'numbered'. */
  layout?: DocumentLayout
  seed?: number
  signal?: AbortSignal
  onProgress?: (done: number, total: number) => void
}

export interface SearchedBootstrapStatistics {
  questions: number
  /** Searches that the provider answered with documents, none included; the others failed. */
  answered: number
  failed: number
  kept: number
}

/**
 * Writes one demonstration for each question whose documents hold a golden answer: thought, search, the documents as
 * training with this provider, layout and limit would show them, and that answer. Questions that would break the grammar
 * are left out.
 *
 * @throws SsrlError `ERR_SEARCH`, or what the provider said, when no search at all is answered
 */
export async function bootstrapFromSearches(
  options: SearchedBootstrapOptions,
): Promise<{ demonstrations: Demonstration[]; statistics: SearchedBootstrapStatistics }> {
  const { questions, tokenizer, maxDocumentTokens = 200, layout = 'numbered', seed = 0 } = options
  const { signal = new AbortController().signal } = options
  const desk = new SearchDesk(options.provider, options)
  const block = { layout, maxDocumentTokens, maxTokens: Number.POSITIVE_INFINITY, overshoot: '' }
  const statistics = { questions: questions.length, answered: 0, failed: 0, kept: 0 }
  let failure: { code: SsrlError['code']; message: string } | undefined
  let done = 0

  const demonstrate = async (question: Question, index: number): Promise<Demonstration[]> => {
    // What no template can be written for is not asked: searches may cost money.
    if (bootstrapFromTemplate([question]).length === 0) return []
    const query = templateQuery(question)
    const origin = {
      questionId: question.id,
      question: question.question,
      goldenAnswers: question.goldenAnswers,
    }
    const { result } = await desk.ask(
      query,
      { ...origin, turn: 0, seed: derivedSeed(seed, index) },
      { signal, step: 0, steps: 0 },
    )
    options.onProgress?.(++done, questions.length)
    if (!('documents' in result)) {
      statistics.failed += 1
      failure ??= 'failure' in result ? result.failure : undefined
      return []
    }
    statistics.answered += 1
    return around(question, index, result.documents)
  }

  const around = (question: Question, index: number, documents: SearchDocument[]): Demonstration[] => {
    const information = tokenizer.decode(informationBlock(tokenizer, documents, block)!)
    const answer = question.goldenAnswers.find((golden) => coverExactMatchScore(information, [golden]) === 1)
    if (answer === undefined) return []
    const asked = { ...question, goldenAnswers: [answer] }
    return bootstrapFromTemplate([asked], { seed: derivedSeed(seed, index) }).flatMap((demonstration) => {
      const completion = demonstration.completion.replace(
        /<information>.*<\/information>/s,
        () => information,
      )
      if (formatScore(completion) === 0) return []
      return [{ ...demonstration, golden_answers: question.goldenAnswers, completion }]
    })
  }

  const demonstrations = (await Promise.all(questions.map(demonstrate))).flat()
  if (statistics.answered === 0 && statistics.failed > 0) {
    const { name } = options.provider
    if (failure === undefined)
      throw new SsrlError('ERR_INVALID_ARG', `Expected a provider of documents, not ${name}`)
    throw new SsrlError(failure.code, `No search was answered by ${name}: ${failure.message}`)
  }
  statistics.kept = demonstrations.length
  return { demonstrations, statistics }
}
