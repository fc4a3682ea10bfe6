/** A token that is found in the raw text before the vocabulary's own splitting. */
export interface AddedToken {
  id: number
  content: string
  /** left out when decoding with `skipSpecial`; control tokens are, Qwen3's `<think>` is not */
  special: boolean
  /** found in the normalized text */
  normalized: boolean
  /** swallows white space on its left, on its right */
  lstrip: boolean
  rstrip: boolean
  /** only where no letter, digit or underscore stands beside it */
  singleWord: boolean
}

/** A part of a text: an added token with its id, or the text between two of them. */
export interface TextPart {
  start: number
  end: number
  id?: number
}

/** Half-open range of UTF-16 indices. */
export type Range = readonly [start: number, end: number]

/** Splits text at added tokens, as Hugging Face tokenizers does: the leftmost match first, the longest of those. */
export class AddedTokenSplitter {
  readonly #pattern: RegExp | null
  readonly #tokens = new Map<string, AddedToken>()

  /** @param contents what to look for, for each token */
  constructor(tokens: readonly AddedToken[], contents = tokens.map((token) => token.content)) {
    tokens.forEach((token, i) => {
      if (contents[i]) this.#tokens.set(contents[i], token)
    })
    const longestFirst = [...this.#tokens.keys()].sort((a, b) => b.length - a.length)
    this.#pattern = longestFirst.length > 0 ? new RegExp(longestFirst.map(escapeRegExp).join('|'), 'g') : null
  }

  get isEmpty() {
    return this.#pattern === null
  }

  /**
   * @param allowed ascending ranges of `text` in which a token may be found: one that would span a range's border is none
   * @returns parts that cover the text in order, white space that a token swallowed aside
   */
  split(text: string, allowed: readonly Range[]): TextPart[] {
    const parts: TextPart[] = []
    let done = 0
    for (const match of this.#matches(text, allowed)) {
      const start = Math.max(done, match.start)
      if (done < start) parts.push({ start: done, end: start })
      parts.push({ ...match, start })
      done = Math.max(done, match.end)
    }
    if (done < text.length) parts.push({ start: done, end: text.length })
    return parts
  }

  *#matches(text: string, allowed: readonly Range[]): Generator<Required<TextPart>> {
    if (!this.#pattern) return
    for (const [from, to] of allowed) {
      for (const match of text.slice(from, to).matchAll(this.#pattern)) {
        const token = this.#tokens.get(match[0])!
        let start = from + match.index
        let end = start + match[0].length
        if (token.singleWord && (endsInWord(text.slice(0, start)) || startsWithWord(text.slice(end))))
          continue
        if (token.lstrip) start -= trailingSpace(text.slice(0, start))
        if (token.rstrip) end += leadingSpace(text.slice(end))
        yield { start, end, id: token.id }
      }
    }
  }
}

function escapeRegExp(text: string) {
  return text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&')
}

const endsInWord = (text: string) => /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]$/u.test(text)
const startsWithWord = (text: string) => /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]/u.test(text)
const leadingSpace = (text: string) => /^\p{White_Space}*/u.exec(text)![0].length

function trailingSpace(text: string) {
  // scanned from the end: a pattern anchored at the end is quadratic in runs of white space
  let length = 0
  while (length < text.length && /\p{White_Space}/u.test(text[text.length - 1 - length]!)) length++
  return length
}
