import { SsrlError } from '../errors.ts'
import { encodePrompt } from '../policy/chat-template.ts'
import type { Policy } from '../policy/policy.ts'
import type { Tokenizer } from '../policy/tokenizer.ts'
import { type PromptTemplate, renderPrompt } from './prompts.ts'

/** Ids of the prompt of one question: as the user's turn where the model has a chat template, else as plain text. */
export function encodeQuestion(tokenizer: Tokenizer, question: string, template: PromptTemplate): Int32Array {
  return encodePrompt(tokenizer, [{ role: 'user', content: renderPrompt(question, template) }])
}

/** @throws SsrlError `ERR_TOKENIZER` for a policy without one: questions are text */
export function tokenizerOf(policy: Policy): Tokenizer {
  if (policy.tokenizer) return policy.tokenizer
  throw new SsrlError(
    'ERR_TOKENIZER',
    'Expected a policy with a tokenizer (tokenizer.json beside its weights)',
  )
}
