import type { NativeCompletion, NativeTokensCallback } from '../native.ts'
import type { Tokenizer } from './tokenizer.ts'

/** One sample of a request; values of a token stand at its index in `tokens`. */
export interface Completion {
  /** index of the request in the call */
  requestIndex: number
  /** 0 .. n - 1 */
  sampleIndex: number
  promptTokens: Int32Array
  /** every sampled token, those that ended it too */
  tokens: Int32Array
  /** [tokens] log-probs under the full softmax at the request's temperature (1 when greedy), in nats */
  logProbs: Float32Array
  /** [tokens] entropies of the same distribution, in nats */
  entropies: Float32Array
  /** [tokens] log-probs under the truncated distribution; there with topP, topK or minP */
  sampledLogProbs?: Float32Array
  /**
   * What `tokens` say, without end tokens, and with what the last token carries after a stop string. Empty for a policy
   * without a tokenizer.
   */
  text: string
  /** 'stop': a stop string; 'end': an end token; 'length': maxNewTokens, or the end of the context */
  finishReason: 'stop' | 'end' | 'length'
}

export interface DecodeContext {
  tokenizer: Tokenizer | null
  endTokenIds: readonly number[]
}

export function toCompletion(
  native: NativeCompletion,
  promptTokens: Int32Array,
  context: DecodeContext,
): Completion {
  const { requestIndex, sampleIndex, tokens, logProbs, entropies, sampledLogProbs, finishReason } = native
  const shared = { requestIndex, sampleIndex, promptTokens, tokens, logProbs, entropies }
  const text = decodeCompletion(tokens, context)
  return { ...shared, ...(sampledLogProbs && { sampledLogProbs }), text, finishReason }
}

export function decodeCompletion(tokens: Int32Array, { tokenizer, endTokenIds }: DecodeContext): string {
  if (!tokenizer) return ''
  return tokenizer.decode(tokens.filter((id) => !endTokenIds.includes(id)))
}

/** Completions come as they finish; they are handed over request by request, sample by sample. */
export function inOrder(completions: Completion[]): Completion[] {
  return completions.sort((a, b) => a.requestIndex - b.requestIndex || a.sampleIndex - b.sampleIndex)
}

/** One sampled token, as it comes. */
export interface TokenEvent {
  requestIndex: number
  sampleIndex: number
  token: number
  /** the text that became certain with this token: it may be empty, as a character may span tokens */
  text: string
  /** under the full softmax at the request's temperature, as in the completion */
  logProb: number
}

/** Turns the batches of a decode step into one call per token, with text. */
export function tokenStreamer(
  { tokenizer, endTokenIds }: DecodeContext,
  onToken: (event: TokenEvent) => void,
): NativeTokensCallback {
  const streams = new Map<string, { push(id: number): string }>()
  const textOf = (requestIndex: number, sampleIndex: number, token: number) => {
    if (!tokenizer || endTokenIds.includes(token)) return ''
    const row = `${requestIndex} ${sampleIndex}`
    const stream = streams.get(row) ?? tokenizer.createStream()
    streams.set(row, stream)
    return stream.push(token)
  }
  return (requestIndices, samples, tokens, logProbs) => {
    tokens.forEach((token, i) => {
      const requestIndex = requestIndices[i]!
      const sampleIndex = samples[i]!
      const text = textOf(requestIndex, sampleIndex, token)
      onToken({ requestIndex, sampleIndex, token, text, logProb: logProbs[i]! })
    })
  }
}
