import { SsrlError } from '../errors.ts'
import type { NativeGenerateRequest } from '../native.ts'
import { encodePrompt, type Message } from './chat-template.ts'
import {
  expect,
  nativeSampling,
  refuseUnknown,
  requestSeed,
  resolveSampling,
  resolveSeed,
  type SamplingOptions,
  samplingKeys,
} from './sampling.ts'
import type { TextSegment, Tokenizer } from './tokenizer.ts'

/**
 * A prompt and how to go on from it.
 *
 * A string is taken as it is, with BOS where the tokenizer adds one; messages go through the chat template (where there
 * is none, their texts stand with a blank line between); segments are a text whose untrusted parts hold no control token;
 * `tokens` are ids, used unchanged.
 */
export type GenerateRequest = (
  | { prompt: string | Message[] | TextSegment[]; tokens?: undefined }
  | { tokens: Int32Array; prompt?: undefined }
) & {
  /** samples of this prompt, which share it; default 1 */
  n?: number
} & SamplingOptions

/** What stands behind the requests of one call. */
export interface RequestContext {
  tokenizer: Tokenizer | null
  vocabSize: number
  maxPositions: number
}

/** Checks requests and options, encodes prompts, and gives every request its seed. */
export function resolveRequests(
  requests: readonly GenerateRequest[],
  options: SamplingOptions,
  context: RequestContext,
): NativeGenerateRequest[] {
  expect(Array.isArray(requests), 'an array', 'requests', requests)
  const { seed, ...defaults } = options
  resolveSampling(defaults)
  const callSeed = resolveSeed(seed)
  return requests.map((request, index) => {
    const where = `requests[${index}].`
    expect(typeof request === 'object' && request !== null, 'an object', `requests[${index}]`, request)
    const { prompt, tokens: ids, n = 1, seed: own, ...sampling } = request
    refuseUnknown(sampling, samplingKeys, `option of requests[${index}]`)
    expect(Number.isInteger(n) && n >= 1 && n < 2 ** 31, 'an integer of at least 1', `${where}n`, n)
    const tokens = resolvePrompt(prompt, ids, where, context)
    const given = Object.fromEntries(Object.entries(sampling).filter(([, value]) => value !== undefined))
    const requestSampling = resolveSampling({ ...defaults, ...given }, where)
    refuseStopsWithoutTokenizer(requestSampling.stop, context)
    const ownSeed = own === undefined ? requestSeed(callSeed, index) : resolveSeed(own, where)
    return { tokens, n, ...nativeSampling(requestSampling, ownSeed) }
  })
}

/** @throws SsrlError ERR_TOKENIZER where stop strings meet a policy that can't decode */
export function refuseStopsWithoutTokenizer(stop: readonly string[], context: RequestContext): void {
  if (stop.length > 0 && !context.tokenizer) {
    throw new SsrlError('ERR_TOKENIZER', 'Stop strings need a tokenizer, and this policy has none')
  }
}

function resolvePrompt(
  prompt: GenerateRequest['prompt'],
  tokens: Int32Array | undefined,
  where: string,
  context: RequestContext,
): Int32Array {
  if ((prompt === undefined) === (tokens === undefined)) {
    throw new SsrlError('ERR_INVALID_ARG', `Expected either ${where}prompt or ${where}tokens`)
  }
  if (tokens !== undefined) return checkTokens(tokens, `${where}tokens`, context, 1)
  if (!context.tokenizer) {
    throw new SsrlError(
      'ERR_TOKENIZER',
      `${where}prompt needs a tokenizer, and this policy has none: pass tokens`,
    )
  }
  expect(
    typeof prompt === 'string' || (Array.isArray(prompt) && prompt.length > 0),
    'a string or a list of messages',
    `${where}prompt`,
    prompt,
  )
  return checkTokens(encodePrompt(context.tokenizer, prompt!), `${where}prompt`, context, 1)
}

/**
 * @param room tokens that must still fit into the context
 * @throws SsrlError ERR_INVALID_ARG unless the tokens are an Int32Array of ids of the model, at least one and not too many
 */
export function checkTokens(
  tokens: Int32Array,
  name: string,
  context: RequestContext,
  room: number,
): Int32Array {
  expect(tokens instanceof Int32Array, 'an Int32Array', name, tokens)
  if (tokens.length === 0) {
    throw new SsrlError('ERR_INVALID_ARG', `Expected at least one token for ${name} but received none`)
  }
  if (tokens.length + room > context.maxPositions) {
    throw new SsrlError(
      'ERR_INVALID_ARG',
      `Expected at most ${context.maxPositions - room} tokens for ${name}, as the model's context holds ${context.maxPositions}, but received ${tokens.length}: shorten it`,
    )
  }
  const bad = tokens.find((id) => id < 0 || id >= context.vocabSize)
  expect(bad === undefined, `token ids from 0 to ${context.vocabSize - 1}`, name, bad)
  return tokens
}
