import { randomInt } from 'node:crypto'
import type { Policy } from '../policy/policy.ts'
import { answerPrompt } from '../rollout/answer-prompt.ts'
import { tokenizerOf } from '../rollout/encode-question.ts'
import { STOP_TAG } from '../rollout/grammar.ts'
import type { Search } from '../rollout/search.ts'
import { TokenSource } from '../rollout/trajectory.ts'
import { ApiError } from './api-error.ts'
import { ChoiceText } from './choice-text.ts'
import type { ServedRequest } from './request.ts'
import { usageOf, type Writer } from './write.ts'

/** Answers by the policy and those whom it asks: documents stand in the text, and count as tokens of the prompt. */
export function searchWriter(policy: Policy, search: Search): Writer {
  const tokenizer = tokenizerOf(policy)
  return async (request, { signal, onPiece, onEnd }) => {
    refuseWhatSearchLacks(request)
    const { prompts, n, sampling, question } = request
    const { temperature, topP, topK, minP } = sampling
    let written = 0
    let shown = 0
    const answers = prompts.map((prompt, index) => {
      const texts = Array.from(
        { length: n },
        () => new ChoiceText({ tokenizer, endTokenIds: policy.endTokenIds, stop: [], keptStop: [STOP_TAG] }),
      )
      const tell = (sample: number, piece: ReturnType<ChoiceText['end']>) => {
        if (piece.text !== '') onPiece(index * n + sample, piece)
      }
      const asked = { id: '', question, goldenAnswers: [], fields: {} }
      return answerPrompt(policy, prompt, asked, {
        ...{ search, n, temperature, topP, topK, minP, signal },
        maxNewTokens: request.maxNewTokens[index]!,
        seed: seedOf(request, index),
        onToken: (sample, { token, source }) => {
          if (source === TokenSource.policy) written += 1
          else shown += 1
          tell(sample, texts[sample]!.push(token, 0))
        },
        onAnswer: (sample, { finishReason }) => {
          tell(sample, texts[sample]!.end())
          onEnd(index * n + sample, finishReason === 'length' ? 'length' : 'stop')
        },
      })
    })
    // One that fails leaves none behind that is still being written.
    await Promise.allSettled(answers)
    await Promise.all(answers)
    return usageOf(request, written, shown)
  }
}

function refuseWhatSearchLacks({ logProbs, stop, sampling }: ServedRequest): void {
  const asked = logProbs ? 'logprobs' : stop.length > 0 ? 'stop' : sampling.ignoreEnd ? 'ignore_eos' : null
  if (asked === null) return
  const message = `${asked} is not supported here: this server's policy searches while it answers`
  throw new ApiError(message, { status: 400, param: asked, code: 'unsupported_value' })
}

/** What the loop derives its seeds from is a number, and a request's seed has 64 bits. */
function seedOf({ seed }: ServedRequest, index: number): number {
  return seed === undefined ? randomInt(2 ** 47) : Number(seed % 2n ** 47n) + index
}
