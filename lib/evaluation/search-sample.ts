import type { Policy } from '../policy/policy.ts'
import { encodeQuestion, tokenizerOf } from '../rollout/encode-question.ts'
import { type PromptTemplate, promptTemplates } from '../rollout/prompts.ts'
import type { Search } from '../rollout/search.ts'
import { selfSearch } from '../rollout/self-search.ts'
import type { Sample, Sampler } from './sample.ts'

const builtIn = (): PromptTemplate => ({ name: 'self-search', text: promptTemplates['self-search'] })

/** Samples of a policy whose searches are answered as `search` says. */
export function searchSampler(policy: Policy, search: Search, template = builtIn()): Sampler {
  return async (questions, method, settings) => {
    const { n, onQuestion, ...rest } = settings
    const context = policy.config.maxPositions
    const encoded = questions.map((question) => ({
      question,
      promptTokens: encodeQuestion(tokenizerOf(policy), question.question, template),
    }))
    const fitting = encoded.flatMap((item, index) => (item.promptTokens.length < context ? [index] : []))
    const samples: Sample[][] = questions.map(() =>
      Array.from({ length: n }, () => ({ text: '', finishReason: 'prompt-too-long', tokens: 0 })),
    )
    const asked = fitting.map((index) => encoded[index]!)
    const options = { ...rest, n, search, stopAtAnswer: method.stop.length > 0 }
    for await (const group of selfSearch(policy, asked, options)) {
      samples[fitting[group[0]!.group]!] = group.map(({ text, finishReason, tokens, promptLength }) => ({
        text,
        finishReason,
        tokens: tokens.length - promptLength,
      }))
      onQuestion?.()
    }
    return samples
  }
}
