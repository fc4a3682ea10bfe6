/** From examples to token ids with the tokens that are trained. */
import type { ChatMessage, Example } from '../data/examples.ts'
import { SsrlError } from '../errors.ts'
import { inTurns } from '../in-turns.ts'
import { encodePrompt } from '../policy/chat-template.ts'
import type { Tokenizer } from '../policy/tokenizer.ts'
import { encodeQuestion } from '../rollout/encode-question.ts'
import { type Span, TagParser } from '../rollout/grammar.ts'
import { informationWeights } from '../rollout/mask.ts'
import type { PromptTemplate } from '../rollout/prompts.ts'

/** T tokens; the mask has T - 1 values, index t belongs to token t + 1. */
export interface SftSequence {
  tokens: Int32Array
  lossMask: Uint8Array
}

export interface EncodeOptions {
  /** Instruction around the question of `question` examples. */
  promptTemplate: PromptTemplate
  /** Train on the completion's tokens only; false: on all tokens. */
  completionOnly: boolean
  /** Leave information blocks that answer a search out of the loss. */
  maskInformation: boolean
  /** Put the end token after each completion and text, and train it. */
  endToken: boolean
}

/**
 * Encodes one example; one with several turns of the assistant becomes one sequence for each, since chat templates
 * render earlier turns in their own way.
 *
 * @throws SsrlError `ERR_TOKENIZER` when an end token is wanted and the tokenizer has none
 */
export function encodeExample(tokenizer: Tokenizer, example: Example, options: EncodeOptions): SftSequence[] {
  return promptsAndCompletions(tokenizer, example, options).map(({ prompt, completion }) => {
    const written = tokenizer.encode(completion, { addSpecialTokens: false })
    const end = options.endToken ? [endOf(tokenizer)] : []
    const tokens = Int32Array.from([...prompt, ...written, ...end])
    const lossMask = new Uint8Array(Math.max(tokens.length - 1, 0)).fill(1)
    if (options.completionOnly && example.kind !== 'text') lossMask.fill(0, 0, Math.max(prompt.length - 1, 0))
    if (options.maskInformation) {
      const weights = informationWeights(spansOf(tokenizer, written), written.length)
      for (const [at, weight] of weights.entries()) {
        const token = prompt.length + at
        if (weight === 0 && token > 0) lossMask[token - 1] = 0
      }
    }
    return { tokens, lossMask }
  })
}

function spansOf(tokenizer: Tokenizer, tokens: Int32Array): Span[] {
  const parser = new TagParser()
  const stream = tokenizer.createStream()
  for (const token of tokens) parser.push(stream.push(token))
  return parser.finish().spans
}

interface Part {
  prompt: Int32Array
  completion: string
}

function promptsAndCompletions(tokenizer: Tokenizer, example: Example, options: EncodeOptions): Part[] {
  switch (example.kind) {
    case 'completion':
      return [{ prompt: encodePrompt(tokenizer, example.prompt), completion: example.completion }]
    case 'question': {
      const prompt = encodeQuestion(tokenizer, example.question, options.promptTemplate)
      return [{ prompt, completion: example.completion }]
    }
    case 'text':
      // BOS and what else the tokenizer puts in front of a text.
      return [{ prompt: tokenizer.encode(''), completion: example.text }]
    case 'messages':
      return assistantTurns(tokenizer, example.messages)
  }
}

function assistantTurns(tokenizer: Tokenizer, messages: readonly ChatMessage[]): Part[] {
  return messages.flatMap((message, index) => {
    if (message.role !== 'assistant' || index === 0 || message.content.trim() === '') return []
    const prompt = encodePrompt(tokenizer, messages.slice(0, index))
    return [{ prompt, completion: message.content }]
  })
}

function endOf(tokenizer: Tokenizer): number {
  if (tokenizer.eosTokenId !== undefined) return tokenizer.eosTokenId
  throw new SsrlError('ERR_TOKENIZER', 'The tokenizer names no end token (eos_token): set endToken to false')
}

/** Encodes all examples and drops sequences of more than `maxLength` tokens and those with nothing to train. */
export async function encodeExamples(
  tokenizer: Tokenizer,
  examples: readonly Example[],
  options: EncodeOptions & { maxLength: number; signal?: AbortSignal },
): Promise<{ sequences: SftSequence[]; dropped: number }> {
  const encode = (example: Example) => encodeExample(tokenizer, example, options)
  const all = (await inTurns(examples, encode, options.signal)).flat()
  const sequences = all.filter(
    ({ tokens, lossMask }) => tokens.length <= options.maxLength && lossMask.includes(1),
  )
  return { sequences, dropped: all.length - sequences.length }
}

/**
 * Takes the sequences of one optimizer step from an endless walk: `rows` of them, or, packed, so many rows of whole
 * sequences that add up to at most `packedLength` tokens.
 *
 * @param next gives the following sequence of the walk; `peek` looks at it without taking it
 */
export function takeBatch(
  walk: { peek(): SftSequence; next(): SftSequence },
  { rows, packedLength }: { rows: number; packedLength: number | null },
): SftSequence[] {
  const batch: SftSequence[] = []
  for (let row = 0; row < rows; row++) {
    let length = 0
    do {
      const sequence = walk.next()
      length += sequence.tokens.length
      batch.push(sequence)
    } while (packedLength !== null && length + walk.peek().tokens.length <= packedLength)
  }
  return batch
}
