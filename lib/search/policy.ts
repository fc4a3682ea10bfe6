import { SsrlError } from '../errors.ts'
import { encodePrompt } from '../policy/chat-template.ts'
import type { Policy } from '../policy/policy.ts'
import type { TextSegment } from '../policy/tokenizer.ts'
import { Random } from '../random.ts'
import { parseDocuments } from './documents.ts'
import type { SearchContext, SearchDocument, SearchOrigin, SearchProvider } from './provider.ts'

/** What a simulated engine is asked for. */
export interface SimulatedQuery {
  query: string
  /** False: the documents are to lead astray. */
  useful: boolean
  documents: number
  question: string
  /** Null unless `leakAnswer` is set. */
  goldenAnswers: readonly string[] | null
}

export interface PolicyProviderOptions {
  /** The policy that plays the engine. */
  policy: Policy
  /** Default `policy`; part of a cache's key. */
  name?: string
  /** Probability of noise before the first step and at the last; default 0 and 0.5, as in ZeroSearch. */
  noiseStart?: number
  noiseEnd?: number
  /** Whether the golden answers are in the prompt, as in ZeroSearch's own code; default false. */
  leakAnswer?: boolean
  /** Default 1. */
  temperature?: number
  /** Default 256. */
  maxNewTokens?: number
  /** The user's turn of the engine's prompt. */
  prompt?: (asked: SimulatedQuery) => TextSegment[]
  /** Stop strings of the engine's completion. */
  stop?: string[]
  /** Reads the documents out of what the engine wrote. */
  parse?: (text: string, most: number) => SearchDocument[]
}

/**
 * ZeroSearch (arXiv 2505.04588): a language model plays the engine, and writes useful or noisy documents. The probability of
 * noise at step i of m is p_s + (4^(i/m) - 1)/3 · (p_e - p_s) (its eq. 4). The question's golden answers stay out of the
 * prompt unless asked for, and each query keeps its own question.
 */
export function policyProvider(options: PolicyProviderOptions): SearchProvider {
  const { policy, name = 'policy', noiseStart = 0, noiseEnd = 0.5, leakAnswer = false } = options
  const {
    temperature = 1,
    maxNewTokens = 256,
    prompt = simulatorPrompt,
    stop = [],
    parse = parseDocuments,
  } = options
  const { tokenizer } = policy
  if (!tokenizer) {
    throw new SsrlError(
      'ERR_TOKENIZER',
      'Expected a policy with a tokenizer to play the engine: queries are text',
    )
  }
  for (const [key, value] of Object.entries({ noiseStart, noiseEnd })) {
    if (value >= 0 && value <= 1) continue
    throw new SsrlError('ERR_INVALID_CONFIG', `Expected a probability for ${key} but received ${value}`)
  }
  const isUseful = ({ seed }: SearchOrigin, { step, steps }: Pick<SearchContext, 'step' | 'steps'>) =>
    !new Random(seed).chance(noiseAt(step, steps, { noiseStart, noiseEnd }))
  return {
    name: `policy ${name}`,
    cacheKey: (origin, context) => JSON.stringify([origin.seed, isUseful(origin, context), origin.question]),
    search: async (queries, context) => {
      const requests = queries.map((query, index) => {
        const origin = context.origins[index]!
        const asked: SimulatedQuery = {
          query,
          useful: isUseful(origin, context),
          documents: context.topK,
          question: origin.question,
          goldenAnswers: leakAnswer ? origin.goldenAnswers : null,
        }
        const content = encodePrompt(tokenizer, [{ role: 'user', content: prompt(asked) }])
        return { tokens: content, seed: origin.seed }
      })
      const completions = await policy.generate(requests, {
        temperature,
        maxNewTokens,
        stop,
        signal: context.signal,
      })
      return completions.map(({ text }) => ({ documents: parse(text, context.topK) }))
    },
  }
}

/** ZeroSearch's curriculum; outside of a run, its beginning. */
export function noiseAt(
  step: number,
  steps: number,
  { noiseStart, noiseEnd }: { noiseStart: number; noiseEnd: number },
): number {
  const share = steps === 0 ? 0 : step / steps
  return noiseStart + ((4 ** share - 1) / 3) * (noiseEnd - noiseStart)
}

/** What the engine is asked by default; a tuned simulator was tuned on exactly this. */
export function simulatorPrompt({
  query,
  useful,
  documents,
  question,
  goldenAnswers,
}: SimulatedQuery): TextSegment[] {
  const kind = useful
    ? 'useful: they help to answer the query'
    : 'noisy: they are on the topic but do not help'
  const answer: TextSegment[] =
    goldenAnswers === null
      ? []
      : [
          { text: `Question behind it: ` },
          untrusted(question),
          { text: '\nIts answer: ' },
          untrusted(goldenAnswers.join(' / ')),
          { text: '\n' },
        ]
  return [
    {
      text: `You play a search engine. Write ${documents} documents of about 30 words each for the query, numbered Doc 1: …, `,
    },
    { text: `Doc 2: … The documents are ${kind}.\n` },
    ...answer,
    { text: 'Query: ' },
    untrusted(query),
    { text: '\n' },
  ]
}

const untrusted = (text: string): TextSegment => ({ text, untrusted: true })
