import type { Tokenizer } from '../policy/tokenizer.ts'

/** A token of the text that was given out, with its log-prob in nats. */
export interface GivenToken {
  token: number
  logProb: number
  /** Characters of the choice's text before it. */
  offset: number
}

/** What has become certain of a choice's text. */
export interface Piece {
  text: string
  tokens: GivenToken[]
}

export interface ChoiceTextOptions {
  tokenizer: Tokenizer
  endTokenIds: readonly number[]
  /** Texts that end a choice and are no part of it. */
  stop: readonly string[]
  /** Texts that end a choice and stay in it; what the same token holds behind them goes. */
  keptStop: readonly string[]
}

type WaitingToken = GivenToken & { end: number }

/** The text of one choice as its tokens come. What may be the beginning of a stop string waits until that is certain. */
export class ChoiceText {
  readonly #options: ChoiceTextOptions
  readonly #stream: { push(id: number): string; end(): string }
  readonly #longest: number
  #text = ''
  #given = 0
  #cut: number | null = null
  #waiting: WaitingToken[] = []

  constructor(options: ChoiceTextOptions) {
    this.#options = options
    this.#stream = options.tokenizer.createStream()
    this.#longest = Math.max(0, ...[...options.stop, ...options.keptStop].map(({ length }) => length))
  }

  push(token: number, logProb: number): Piece {
    if (this.#options.endTokenIds.includes(token)) return { text: '', tokens: [] }
    const offset = this.#text.length
    this.#extend(this.#stream.push(token))
    this.#waiting.push({ token, logProb, offset, end: this.#text.length })
    return this.#give(this.#cut ?? this.#text.length - this.#held())
  }

  /** The rest, once no token comes any more. */
  end(): Piece {
    this.#extend(this.#stream.end())
    const limit = this.#cut ?? this.#text.length
    this.#waiting = this.#waiting
      .filter(({ offset }) => offset < limit || this.#cut === null)
      .map((token) => ({ ...token, end: Math.min(token.end, limit) }))
    return this.#give(limit)
  }

  #extend(text: string): void {
    const from = Math.max(0, this.#text.length - this.#longest)
    this.#text += text
    if (this.#cut !== null || text === '') return
    const { stop, keptStop } = this.#options
    const find = (found: string, isKept: boolean) => {
      const at = this.#text.indexOf(found, from)
      return at < 0 ? [] : [{ cut: isKept ? at + found.length : at, end: at + found.length }]
    }
    const found = [
      ...stop.flatMap((text) => find(text, false)),
      ...keptStop.flatMap((text) => find(text, true)),
    ]
    const first = found.sort((a, b) => a.end - b.end || a.cut - b.cut)[0]
    if (first) this.#cut = first.cut
  }

  /** Characters at the end that may begin a stop string. */
  #held(): number {
    const lengths = this.#options.stop.map((stop) => {
      let length = Math.min(stop.length - 1, this.#text.length)
      while (length > 0 && !this.#text.endsWith(stop.slice(0, length))) length--
      return length
    })
    return Math.max(0, ...lengths)
  }

  #give(limit: number): Piece {
    const text = this.#text.slice(this.#given, limit)
    this.#given = Math.max(this.#given, limit)
    const isGiven = ({ end }: WaitingToken) => end <= this.#given
    const tokens = this.#waiting.filter(isGiven)
    this.#waiting = this.#waiting.filter((token) => !isGiven(token))
    return { text, tokens: tokens.map(({ token, logProb, offset }) => ({ token, logProb, offset })) }
  }
}
