/** Where completions to be judged come from: a policy in this process, or an OpenAI-compatible endpoint. */
import type { Question } from '../data/questions.ts'
import { inTurns } from '../in-turns.ts'
import { encodePrompt } from '../policy/chat-template.ts'
import type { Policy } from '../policy/policy.ts'
import { derivedSeed } from '../random-seed.ts'
import { tokenizerOf } from '../rollout/encode-question.ts'
import type { FinishReason } from '../rollout/trajectory.ts'
import type { Method } from './methods.ts'

/** `prompt-too-long`: the prompt leaves no room in the model's context; nothing was generated. */
export type SampleEnd = FinishReason | 'prompt-too-long'

export interface Sample {
  text: string
  finishReason: SampleEnd
  /** Completion tokens. */
  tokens: number
}

export interface SampleSettings {
  n: number
  temperature: number
  topP: number
  topK: number
  minP: number
  maxNewTokens: number
  seed: number
  signal?: AbortSignal
  /** Called when the samples of one more question are there. */
  onQuestion?: () => void
}

/** Samples of each question, in their order. */
export type Sampler = (
  questions: readonly Question[],
  method: Method,
  settings: SampleSettings,
) => Promise<Sample[][]>

/** Samples from a policy; each question draws from a seed made from `seed` and its index. */
export function policySampler(policy: Policy): Sampler {
  return async (questions, method, settings) => {
    const context = policy.config.maxPositions
    const prompts = await inTurns(
      questions,
      ({ question }) => encode(policy, method, question),
      settings.signal,
    )
    const asked = prompts.flatMap((tokens, index) => (tokens.length < context ? [{ tokens, index }] : []))
    const samples: Sample[][] = questions.map(() =>
      Array.from({ length: settings.n }, () => ({ text: '', finishReason: 'prompt-too-long', tokens: 0 })),
    )
    const missing = new Map(asked.map(({ index }) => [index, settings.n]))
    const { n, temperature, topP, topK, minP, seed, signal } = settings
    const requests = asked.map(({ tokens, index }) => ({
      tokens,
      n,
      temperature,
      topP,
      topK,
      minP,
      maxNewTokens: Math.min(settings.maxNewTokens, context - tokens.length),
      stop: [...method.stop],
      seed: derivedSeed(seed, index),
    }))
    await policy.generate(requests, {
      signal,
      onCompletion: ({ requestIndex, sampleIndex, text, finishReason, tokens }) => {
        const { index } = asked[requestIndex]!
        samples[index]![sampleIndex] = { text, finishReason, tokens: tokens.length }
        const left = missing.get(index)! - 1
        missing.set(index, left)
        if (left === 0) settings.onQuestion?.()
      },
    })
    return samples
  }
}

function encode(policy: Policy, method: Method, question: string): Int32Array {
  const segments = method.prompt(question)
  if (method.form === 'text') return tokenizerOf(policy).encodeSegments(segments)
  return encodePrompt(tokenizerOf(policy), [{ role: 'user', content: segments }])
}
