/** Answers of the two endpoints, whole and in chunks, as the OpenAI protocol lays them out. */
import { randomUUID } from 'node:crypto'
import type { Tokenizer } from '../policy/tokenizer.ts'
import type { GivenToken, Piece } from './choice-text.ts'

export interface Usage {
  prompt_tokens: number
  completion_tokens: number
  total_tokens: number
}

export interface FinishedChoice extends Piece {
  finishReason: 'stop' | 'length'
}

/** What an answer says about itself. */
export interface AnswerHead {
  model: string
  tokenizer: Tokenizer
  logProbs: boolean
}

export interface Shape {
  whole(choices: readonly FinishedChoice[], usage: Usage): object
  /** What opens a choice in a stream, if anything does. */
  opening(index: number): object | null
  piece(index: number, piece: Piece): object
  ending(index: number, finishReason: string): object
  usage(usage: Usage): object
}

export type MakeShape = (head: AnswerHead) => Shape

export const chatShape: MakeShape = ({ model, tokenizer, logProbs }) => {
  const about = { id: `chatcmpl-${randomUUID()}`, created: now(), model }
  const chunk = (choices: object[]) => ({ object: 'chat.completion.chunk', ...about, choices })
  const logprobs = ({ tokens }: Piece) =>
    logProbs ? { content: tokens.map((token) => chatToken(tokenizer, token)), refusal: null } : null
  return {
    whole: (choices, usage) => ({
      object: 'chat.completion',
      ...about,
      choices: choices.map((choice, index) => ({
        index,
        message: { role: 'assistant', content: choice.text, refusal: null },
        logprobs: logprobs(choice),
        finish_reason: choice.finishReason,
      })),
      usage,
    }),
    opening: (index) =>
      chunk([{ index, delta: { role: 'assistant', content: '' }, logprobs: null, finish_reason: null }]),
    piece: (index, piece) =>
      chunk([{ index, delta: { content: piece.text }, logprobs: logprobs(piece), finish_reason: null }]),
    ending: (index, finishReason) =>
      chunk([{ index, delta: {}, logprobs: null, finish_reason: finishReason }]),
    usage: (usage) => ({ ...chunk([]), usage }),
  }
}

export const textShape: MakeShape = ({ model, tokenizer, logProbs }) => {
  const about = { id: `cmpl-${randomUUID()}`, object: 'text_completion', created: now(), model }
  const logprobs = ({ tokens }: Piece) => (logProbs ? textTokens(tokenizer, tokens) : null)
  const choice = (index: number, piece: Piece, finishReason: string | null) => ({
    index,
    text: piece.text,
    logprobs: logprobs(piece),
    finish_reason: finishReason,
  })
  const nothing: Piece = { text: '', tokens: [] }
  return {
    whole: (choices, usage) => ({
      ...about,
      choices: choices.map((found, index) => choice(index, found, found.finishReason)),
      usage,
    }),
    opening: () => null,
    piece: (index, piece) => ({ ...about, choices: [choice(index, piece, null)] }),
    ending: (index, finishReason) => ({ ...about, choices: [choice(index, nothing, finishReason)] }),
    usage: (usage) => ({ ...about, choices: [], usage }),
  }
}

const now = () => Math.floor(Date.now() / 1000)
const spell = (tokenizer: Tokenizer, token: number) => new TextDecoder().decode(tokenizer.bytesOf(token))

function chatToken(tokenizer: Tokenizer, { token, logProb }: GivenToken) {
  const bytes = Array.from(tokenizer.bytesOf(token))
  return { token: spell(tokenizer, token), logprob: logProb, bytes, top_logprobs: [] }
}

function textTokens(tokenizer: Tokenizer, tokens: readonly GivenToken[]) {
  return {
    tokens: tokens.map(({ token }) => spell(tokenizer, token)),
    token_logprobs: tokens.map(({ logProb }) => logProb),
    top_logprobs: null,
    text_offset: tokens.map(({ offset }) => offset),
  }
}
