import type { Policy } from '../policy/policy.ts'
import { requestSeed, resolveSeed } from '../policy/sampling.ts'
import { tokenizerOf } from '../rollout/encode-question.ts'
import { ChoiceText, type Piece } from './choice-text.ts'
import type { ServedRequest } from './request.ts'
import type { Usage } from './shapes.ts'

/** What is told while choices are written; they are numbered prompt by prompt. */
export interface WriteHooks {
  signal: AbortSignal
  onPiece: (choice: number, piece: Piece) => void
  onEnd: (choice: number, finishReason: 'stop' | 'length') => void
}

/** Writes all choices of a request. The engine batches them with whatever else is being written. */
export type Writer = (request: ServedRequest, hooks: WriteHooks) => Promise<Usage>

/** Answers by the policy alone. It stops at its own stop strings, which stay in the text, and at those of the request. */
export function policyWriter(policy: Policy): Writer {
  return async (request, { signal, onPiece, onEnd }) => {
    const { prompts, n, maxNewTokens, sampling, stop, keepsStop, seed } = request
    const texts = new Map<number, ChoiceText>()
    const textOf = (choice: number) => {
      const text = texts.get(choice) ?? newText(policy, stop, keepsStop)
      texts.set(choice, text)
      return text
    }
    const tell = (choice: number, piece: Piece) => {
      if (piece.text !== '' || piece.tokens.length > 0) onPiece(choice, piece)
    }
    const callSeed = resolveSeed(seed)
    const requests = prompts.map((tokens, index) => ({
      tokens,
      n,
      ...sampling,
      maxNewTokens: maxNewTokens[index]!,
      stop: [...stop, ...policy.stopStrings],
      // The first prompt gets the seed itself, so that a list of one is that one.
      seed: index === 0 ? callSeed : requestSeed(callSeed, index),
    }))
    let completionTokens = 0
    await policy.generate(requests, {
      signal,
      onToken: ({ requestIndex, sampleIndex, token, logProb }) => {
        const choice = requestIndex * n + sampleIndex
        tell(choice, textOf(choice).push(token, logProb))
      },
      onCompletion: ({ requestIndex, sampleIndex, tokens, finishReason }) => {
        const choice = requestIndex * n + sampleIndex
        tell(choice, textOf(choice).end())
        texts.delete(choice)
        completionTokens += tokens.length
        onEnd(choice, finishReason === 'length' ? 'length' : 'stop')
      },
    })
    return usageOf(request, completionTokens)
  }
}

function newText(policy: Policy, stop: readonly string[], keepsStop: boolean): ChoiceText {
  return new ChoiceText({
    tokenizer: tokenizerOf(policy),
    endTokenIds: policy.endTokenIds,
    stop: keepsStop ? [] : stop,
    keptStop: keepsStop ? [...stop, ...policy.stopStrings] : policy.stopStrings,
  })
}

/** A prompt counts once, however many choices share it. */
export function usageOf({ prompts }: ServedRequest, completionTokens: number, shown = 0): Usage {
  const promptTokens = prompts.reduce((sum, { length }) => sum + length, shown)
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
  }
}
