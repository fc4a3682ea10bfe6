import type { z } from 'zod'
import { encodePrompt, type Message } from '../policy/chat-template.ts'
import type { Policy } from '../policy/policy.ts'
import type { SamplingOptions } from '../policy/sampling.ts'
import { tokenizerOf } from '../rollout/encode-question.ts'
import { type PromptTemplate, renderPrompt } from '../rollout/prompts.ts'
import { ApiError } from './api-error.ts'
import { type ChatFields, chatFields, type TextFields, textFields } from './request-fields.ts'

/** One request of either endpoint, read, checked and encoded. */
export interface ServedRequest {
  prompts: Int32Array[]
  /** Choices of each prompt. */
  n: number
  /** Of each prompt: its share of the context, the request's limit and the server's. */
  maxNewTokens: number[]
  sampling: Pick<SamplingOptions, 'temperature' | 'topP' | 'topK' | 'minP' | 'ignoreEnd'>
  seed?: bigint
  stop: string[]
  keepsStop: boolean
  logProbs: boolean
  stream: boolean
  includeUsage: boolean
  /** What was asked: the last turn of the user, or the prompt where it is a text. */
  question: string
}

export interface ReadOptions {
  policy: Policy
  /** The name that requests must give. */
  model: string
  maxNewTokens: number
  /** Wording around the last turn of the user. */
  promptTemplate: PromptTemplate | null
}

/** @throws ApiError 400 or 404 saying which field is wrong */
export function readChat(body: unknown, options: ReadOptions): ServedRequest {
  const fields = parse(chatFields, body)
  checkModel(fields.model, options.model)
  if (fields.top_logprobs) refuseTopLogProbs('top_logprobs', fields.top_logprobs, 'logprobs alone')
  if (fields.top_logprobs === 0 && !fields.logprobs) refuse('top_logprobs needs logprobs', 'top_logprobs')
  const messages = toMessages(fields.messages, options.promptTemplate)
  const prompt = encodePrompt(tokenizerOf(options.policy), messages)
  const most = fields.max_completion_tokens ?? fields.max_tokens
  const question = textOf(fields.messages.findLast(({ role }) => role === 'user')?.content ?? '')
  const logProbs = fields.logprobs === true
  return { ...readShared(fields, [prompt], { ...options, most }), logProbs, question }
}

/** @throws ApiError 400 or 404 saying which field is wrong */
export function readText(body: unknown, options: ReadOptions): ServedRequest {
  const fields = parse(textFields, body)
  checkModel(fields.model, options.model)
  if (fields.logprobs) refuseTopLogProbs('logprobs', fields.logprobs, 'logprobs: 0')
  const isBest = fields.best_of === undefined || fields.best_of === null || fields.best_of === (fields.n ?? 1)
  if (!isBest) refuse('best_of other than n is not supported here', 'best_of')
  const prompts = toPrompts(fields.prompt).map((prompt) =>
    typeof prompt === 'string' ? tokenizerOf(options.policy).encode(prompt) : Int32Array.from(prompt),
  )
  const question = typeof fields.prompt === 'string' ? fields.prompt : ''
  const most = fields.max_tokens ?? defaultTextTokens
  const logProbs = fields.logprobs === 0
  return { ...readShared(fields, prompts, { ...options, most }), logProbs, question }
}

/** The protocol's own default for /v1/completions. */
const defaultTextTokens = 16

function parse<T>(schema: z.ZodType<T>, body: unknown): T {
  const parsed = schema.safeParse(body)
  if (parsed.success) return parsed.data
  const { path, message } = parsed.error.issues[0]!
  const param = path.join('.')
  throw new ApiError(param === '' ? message : `${param}: ${message}`, {
    status: 400,
    param: param || undefined,
  })
}

function checkModel(wanted: string, model: string): void {
  if (wanted === model) return
  const message = `The model ${JSON.stringify(wanted)} does not exist: this server has ${JSON.stringify(model)}`
  throw new ApiError(message, { status: 404, param: 'model', code: 'model_not_found' })
}

function refuse(message: string, param: string): never {
  throw new ApiError(message, { status: 400, param })
}

function refuseTopLogProbs(param: string, count: number, instead: string): never {
  const message = `${param}: the log-prob of the sampled token is all that is known here, but ${count} likeliest were asked for: take ${instead}`
  throw new ApiError(message, { status: 400, param, code: 'unsupported_value' })
}

function readShared(
  fields: ChatFields | TextFields,
  prompts: Int32Array[],
  { policy, maxNewTokens, most }: ReadOptions & { most: number | null | undefined },
): Omit<ServedRequest, 'logProbs' | 'question'> {
  if (most && most > maxNewTokens) {
    refuse(`Expected at most ${maxNewTokens} new tokens but ${most} were asked for`, 'max_tokens')
  }
  if (fields.stream_options && !fields.stream) refuse('stream_options needs stream', 'stream_options')
  const { temperature, top_p: topP, min_p: minP, top_k: topK } = fields
  const rooms = prompts.map((prompt) => room(prompt, policy))
  return {
    prompts,
    n: fields.n ?? 1,
    maxNewTokens: rooms.map((left) => Math.min(left, most ?? left, maxNewTokens)),
    sampling: {
      temperature: temperature ?? 1,
      topP: topP ?? 1,
      topK: Math.max(topK ?? 0, 0),
      minP: minP ?? 0,
      ignoreEnd: fields.ignore_eos ?? false,
    },
    // The protocol's seeds may be negative.
    seed: typeof fields.seed === 'number' ? BigInt.asUintN(64, BigInt(fields.seed)) : undefined,
    stop: fields.stop ? [fields.stop].flat() : [],
    keepsStop: fields.include_stop_str_in_output ?? false,
    stream: fields.stream ?? false,
    includeUsage: fields.stream_options?.include_usage ?? false,
  }
}

/** Tokens that fit behind a prompt. */
function room(prompt: Int32Array, { config: { maxPositions, vocabSize } }: Policy): number {
  if (prompt.length >= maxPositions) {
    const message = `The context holds ${maxPositions} tokens, one at least of the answer, but the prompt has ${prompt.length}: shorten it`
    throw new ApiError(message, { status: 400, code: 'context_length_exceeded' })
  }
  if (prompt.length === 0) refuse('Expected a prompt of at least one token', 'prompt')
  const unknown = prompt.find((id) => id >= vocabSize)
  if (unknown !== undefined) refuse(`Expected token ids below ${vocabSize} but received ${unknown}`, 'prompt')
  return maxPositions - prompt.length
}

function toPrompts(prompt: TextFields['prompt']): (string | number[])[] {
  if (typeof prompt === 'string') return [prompt]
  return typeof prompt[0] === 'number' ? [prompt as number[]] : (prompt as (string | number[])[])
}

const textOf = (content: ChatFields['messages'][number]['content']): string =>
  typeof content === 'string' ? content : content.map(({ text }) => text).join('')

/** Nothing that came over the wire is trusted: no control token arises from it, whoever's turn it is. */
function toMessages(messages: ChatFields['messages'], template: PromptTemplate | null): Message[] {
  const last = template ? messages.findLastIndex(({ role }) => role === 'user') : -1
  return messages.map(({ role, content }, index) => {
    const text = textOf(content)
    return {
      role: role === 'developer' ? 'system' : role,
      content: index === last ? renderPrompt(text, template!) : [{ text, untrusted: true }],
    }
  })
}
