import { encodePrompt, type Message } from '../policy/chat-template.ts'
import type { Policy } from '../policy/policy.ts'
import { tokenizerOf } from '../rollout/encode-question.ts'
import { type PromptTemplate, renderPrompt } from '../rollout/prompts.ts'

export interface ConversationOptions {
  template: PromptTemplate
  maxNewTokens: number
  /** Whether earlier questions and answers stand before a question. */
  remembers: boolean
}

/** What was asked and answered, as far as the context holds it beside an answer. */
export class Conversation {
  readonly #policy: Policy
  readonly #options: ConversationOptions
  #turns: [question: string, answer: string][] = []

  constructor(policy: Policy, options: ConversationOptions) {
    this.#policy = policy
    this.#options = options
  }

  /** The prompt of a question. Where the context is too small, the oldest turns are forgotten for good. */
  ask(question: string): { tokens: Int32Array; forgotten: number } {
    const { maxPositions } = this.#policy.config
    const most = maxPositions - Math.min(this.#options.maxNewTokens, Math.floor(maxPositions / 2))
    const before = this.#turns.length
    for (;;) {
      const tokens = this.#encode(question)
      // A question that does not fit alone is the engine's to refuse.
      if (tokens.length <= most || this.#turns.length === 0) {
        return { tokens, forgotten: before - this.#turns.length }
      }
      this.#turns.shift()
    }
  }

  remember(question: string, answer: string): void {
    if (this.#options.remembers) this.#turns.push([question, answer])
  }

  #encode(question: string): Int32Array {
    const { template } = this.#options
    const user = (text: string): Message => ({ role: 'user', content: renderPrompt(text, template) })
    // Answers hold documents: nothing in them is trusted.
    const earlier = this.#turns.flatMap(([asked, answer]) => [
      user(asked),
      { role: 'assistant', content: [{ text: answer, untrusted: true }] },
    ])
    return encodePrompt(tokenizerOf(this.#policy), [...earlier, user(question)])
  }
}
