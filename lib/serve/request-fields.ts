/** What the two endpoints take, as zod reads it. Fields that would change nothing are taken; those that ask for what is not done here are refused. */
import { z } from 'zod'

/** A field that other servers act on: here only the value that asks for nothing. */
const only = (isNothing: (value: unknown) => boolean, what: string) =>
  z
    .unknown()
    .refine((value) => value === undefined || value === null || isNothing(value), { error: `${what} here` })
    .optional()

const isEmpty = (value: unknown) => typeof value === 'object' && Object.keys(value as object).length === 0
const noFunctions = only(isEmpty, 'functions and tools are not supported')
const ignored = z.unknown().optional()

const unsupported = {
  frequency_penalty: only((value) => value === 0, 'penalties are not supported'),
  presence_penalty: only((value) => value === 0, 'penalties are not supported'),
  logit_bias: only(isEmpty, 'logit_bias is not supported'),
}

/** Names and books of the caller: nothing here depends on them. */
const bookkeeping = {
  user: ignored,
  metadata: ignored,
  store: ignored,
  service_tier: ignored,
  safety_identifier: ignored,
  prompt_cache_key: ignored,
}

const limit = z.int().min(1).nullish()
const stops = z.array(z.string().min(1)).max(16)

const shared = {
  model: z.string({ error: 'Expected the name of a model, as GET /v1/models lists them' }),
  n: z.int().min(1).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z
    .strictObject({ include_usage: z.boolean().nullish(), include_obfuscation: z.literal(false).nullish() })
    .nullish(),
  stop: z
    .union([z.string(), stops], { error: 'Expected a string, or up to 16 that are not empty' })
    .nullish(),
  seed: z.int().nullish(),
  temperature: z.number().min(0).max(100).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  max_tokens: limit,
  // Not of OpenAI, but what other servers call them.
  top_k: z.int().min(-1).nullish(),
  min_p: z.number().min(0).max(1).nullish(),
  ignore_eos: z.boolean().nullish(),
  include_stop_str_in_output: z.boolean().nullish(),
  ...unsupported,
  ...bookkeeping,
}

const textPart = z.object({
  type: z.literal('text', { error: 'Expected a part of type text' }),
  text: z.string(),
})

/** A message that came out of an answer may go in again as it is. */
const message = z.strictObject({
  role: z.enum(['system', 'developer', 'user', 'assistant', 'tool']),
  content: z.union([z.string(), z.array(textPart).min(1)], {
    error: "Expected a string or a list of parts { type: 'text', text }",
  }),
  name: ignored,
  tool_call_id: ignored,
  refusal: only(() => false, 'a refusal is not supported'),
  annotations: only(isEmpty, 'annotations are not supported'),
  tool_calls: noFunctions,
  function_call: noFunctions,
  audio: only(() => false, 'audio is not supported'),
})

export const chatFields = z.strictObject({
  ...shared,
  messages: z.array(message).min(1).max(4096),
  max_completion_tokens: limit,
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
  response_format: only(
    (value) => (value as { type?: unknown }).type === 'text',
    'only the response format text is supported',
  ),
  modalities: only(
    (value) => Array.isArray(value) && value.length === 1 && value[0] === 'text',
    'only the modality text is supported',
  ),
  tools: noFunctions,
  functions: noFunctions,
  tool_choice: only((value) => value === 'none' || value === 'auto', 'functions and tools are not supported'),
  parallel_tool_calls: ignored,
})

const tokenIds = z.array(z.int().min(0)).min(1)

export const textFields = z.strictObject({
  ...shared,
  prompt: z.union([z.string(), tokenIds, z.array(z.union([z.string(), tokenIds])).min(1)], {
    error: 'Expected a text, a list of token ids, or a list of either',
  }),
  logprobs: z.int().min(0).max(5).nullish(),
  echo: only((value) => value === false, 'echo is not supported'),
  suffix: only((value) => value === '', 'suffix is not supported'),
  best_of: z.int().nullish(),
})

export type ChatFields = z.infer<typeof chatFields>
export type TextFields = z.infer<typeof textFields>
