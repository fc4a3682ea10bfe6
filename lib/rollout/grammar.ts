/**
 * The tag grammar of a self-search completion, read once and incrementally: the rollout feeds each sampled token's
 * text and every later question - where to stop, what is masked, what is scored - is answered from the same reading.
 *
 * Reading rules. A block runs from its opener to the first closer of its kind. An opener ends whatever other block is
 * open (left unclosed), but inside an information block every tag up to `</information>` is content: documents may
 * quote tags. A closer without its opener is text.
 */
import { isBlank, strip } from '../rewards/python-text.ts'

export type TagName = 'think' | 'search' | 'information' | 'answer'

/** One of the eight tags as it stands in the text; `start` at `<`, `end` after `>`, in UTF-16 units. */
export interface Tag {
  name: TagName
  closing: boolean
  start: number
  end: number
}

/** A block of the completion. Token numbers count from the first token of the completion. */
export interface Span {
  kind: TagName
  /** Characters `[start, end)`, tags included. */
  start: number
  end: number
  /** Characters `[contentStart, contentEnd)` between the tags. */
  contentStart: number
  contentEnd: number
  /** Tokens `[tokenStart, tokenEnd)`: every token that shares a byte with the characters; for a block that runs to the end, all that follow. */
  tokenStart: number
  tokenEnd: number
  /** False when the block was cut off by another opener or by the end of the text. */
  closed: boolean
  /** For information: true when it stands directly after a closed search, white space aside. Always false for the others. */
  answersSearch: boolean
}

export interface ParsedCompletion {
  text: string
  /** `[tokens]`: the character offset after each token. */
  tokenEnds: Int32Array
  tags: Tag[]
  spans: Span[]
  /** The stripped content of each closed search, in order. */
  queries: string[]
  /** Stripped content of the last closed `<answer>`, wherever it stands; null when there is none. */
  answer: string | null
  /** Closed searches. */
  searchCount: number
  /** True when `</answer>` has been written. */
  stopped: boolean
}

const NAMES: readonly TagName[] = ['think', 'search', 'information', 'answer']
const TAGS = NAMES.flatMap((name) => [
  { name, closing: false, literal: `<${name}>` },
  { name, closing: true, literal: `</${name}>` },
])

/** Where generation ends by default. */
export const STOP_TAG = '</answer>'

type OpenSpan = Omit<Span, 'tokenStart' | 'tokenEnd' | 'answersSearch'>

/** Reads a completion piece by piece; `finish` may be called at any time and reading may go on after it. */
export class TagParser {
  #pieces: string[] = []
  #ends: number[] = []
  #length = 0
  #pending = ''
  #tags: Tag[] = []
  #spans: OpenSpan[] = []
  #open: OpenSpan | null = null
  #answerStart = -1
  #answer: [number, number] | null = null
  #stopped = false

  /** True once `</answer>` is complete. */
  get stopped(): boolean {
    return this.#stopped
  }

  /** Tokens read so far. */
  get tokenCount(): number {
    return this.#ends.length
  }

  /** Characters read whose place in the blocks is certain; what follows them may be the beginning of a tag. */
  get settledLength(): number {
    return this.#length - this.#pending.length
  }

  /** The kind of the block that is open now, or null. */
  get openBlock(): TagName | null {
    return this.#open?.kind ?? null
  }

  /**
   * Reads the text of the next token, as a streaming UTF-8 decoder gives it: a token that ends inside a character
   * brings only what is complete (possibly nothing), and the rest comes with the token that completes it.
   */
  push(tokenText: string): void {
    this.#pieces.push(tokenText)
    this.#length += tokenText.length
    this.#ends.push(this.#length)
    this.#pending += tokenText
    this.#scan()
  }

  /** What has been read, resolved to spans on token borders. */
  finish(): ParsedCompletion {
    const text = this.#pieces.join('')
    const tokenEnds = Int32Array.from(this.#ends)
    const spans = this.#spans.map((span, index) => {
      const open = span === this.#open
      const end = open ? text.length : span.end
      const whole = { ...span, end, contentEnd: open ? end : span.contentEnd }
      const [tokenStart, tokenEnd] = tokenRange(tokenEnds, span.start, open ? Number.POSITIVE_INFINITY : end)
      return { ...whole, tokenStart, tokenEnd, answersSearch: answersSearch(text, this.#spans, index) }
    })
    const queries = spans
      .filter((span) => span.kind === 'search' && span.closed)
      .map((span) => strip(text.slice(span.contentStart, span.contentEnd)))
    return {
      text,
      tokenEnds,
      tags: this.#tags.slice(),
      spans,
      queries,
      answer: this.#answer && strip(text.slice(...this.#answer)),
      searchCount: queries.length,
      stopped: this.#stopped,
    }
  }

  #scan(): void {
    const text = this.#pending
    const base = this.#length - text.length
    let at = text.indexOf('<')
    while (at >= 0) {
      const tag = TAGS.find(({ literal }) => text.startsWith(literal, at))
      if (tag) {
        this.#read({
          name: tag.name,
          closing: tag.closing,
          start: base + at,
          end: base + at + tag.literal.length,
        })
        at = text.indexOf('<', at + tag.literal.length)
      } else if (TAGS.some(({ literal }) => literal.startsWith(text.slice(at)))) {
        this.#pending = text.slice(at)
        return
      } else {
        at = text.indexOf('<', at + 1)
      }
    }
    this.#pending = ''
  }

  #read(tag: Tag): void {
    this.#tags.push(tag)
    this.#readAnswer(tag)
    if (tag.closing) {
      if (this.#open?.kind === tag.name) this.#endBlock(tag.start, tag.end, true)
    } else if (this.#open?.kind !== 'information') {
      this.#endBlock(tag.start, tag.start, false)
      this.#open = {
        kind: tag.name,
        start: tag.start,
        end: tag.end,
        contentStart: tag.end,
        contentEnd: tag.end,
        closed: false,
      }
      this.#spans.push(this.#open)
    }
  }

  // The graded answer is the one that published scoring code extracts: first opener to first closer, whatever
  // stands between or around, so that `ssrl score` and training agree with it.
  #readAnswer(tag: Tag): void {
    if (tag.name !== 'answer') return
    if (!tag.closing) {
      if (this.#answerStart < 0) this.#answerStart = tag.end
      return
    }
    this.#stopped = true
    if (this.#answerStart >= 0) this.#answer = [this.#answerStart, tag.start]
    this.#answerStart = -1
  }

  #endBlock(contentEnd: number, end: number, closed: boolean): void {
    if (!this.#open) return
    this.#open.contentEnd = contentEnd
    this.#open.end = end
    this.#open.closed = closed
    this.#open = null
  }
}

/** Reads a whole text as one token. */
export function parseCompletion(text: string): ParsedCompletion {
  const parser = new TagParser()
  parser.push(text)
  return parser.finish()
}

function answersSearch(text: string, spans: OpenSpan[], index: number): boolean {
  const span = spans[index]!
  const before = spans[index - 1]
  if (span.kind !== 'information' || before?.kind !== 'search' || !before.closed) return false
  return isBlank(text.slice(before.end, span.start))
}

/**
 * Tokens `[first, last + 1)` that share a byte with the characters `[start, end)`. A token without text of its own
 * (the first bytes of a character, or an end token) belongs where it stands: inside, if characters of the block are
 * on both sides of it.
 */
function tokenRange(tokenEnds: Int32Array, start: number, end: number): [number, number] {
  const first = firstIndex(tokenEnds, (to) => to > start)
  const last = firstIndex(tokenEnds, (to) => to >= end)
  return [first, Math.min(last + 1, tokenEnds.length)]
}

/** Index of the first value for which a condition holds that holds for all after it; the length when there is none. */
function firstIndex(values: Int32Array, holds: (value: number) => boolean): number {
  let low = 0
  let high = values.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (holds(values[middle]!)) high = middle
    else low = middle + 1
  }
  return low
}
