import { type TagName, TagParser } from '../rollout/grammar.ts'
import type { Color, Painter } from './colors.ts'

const colors: Record<TagName, Color> = {
  think: 'dim',
  search: 'yellow',
  information: 'blue',
  answer: 'green',
}

/** Paints text as it comes, a colour for each block, tags included. What may be the beginning of a tag waits. */
export class BlockPainter {
  readonly #paint: Painter
  readonly #onLines: boolean
  readonly #parser = new TagParser()
  #waiting = ''
  #read = 0
  #last = '\n'

  /** @param options.onLines begin each block on a line of its own */
  constructor(paint: Painter, { onLines = false } = {}) {
    this.#paint = paint
    this.#onLines = onLines
  }

  push(text: string): string {
    const runs: { kind: TagName | null; text: string }[] = []
    // Letter by letter, what becomes certain at once is of one block, or one tag.
    for (const letter of text) {
      const before = this.#parser.openBlock
      this.#parser.push(letter)
      this.#waiting += letter
      this.#read += letter.length
      const count = this.#waiting.length - (this.#read - this.#parser.settledLength)
      if (count === 0) continue
      const opened = this.#parser.openBlock
      const kind = opened ?? before
      const settled = this.#waiting.slice(0, count)
      this.#waiting = this.#waiting.slice(count)
      const begins = this.#onLines && opened !== null && opened !== before && this.#last !== '\n'
      const last = runs.at(-1)
      if (last && last.kind === kind && !begins) last.text += settled
      else runs.push({ kind, text: (begins ? '\n' : '') + settled })
      this.#last = settled.at(-1)!
    }
    return runs.map((run) => this.#painted(run.kind, run.text)).join('')
  }

  /** What waits, once nothing comes any more. */
  end(): string {
    const rest = this.#waiting
    this.#waiting = ''
    return this.#painted(this.#parser.openBlock, rest)
  }

  #painted(kind: TagName | null, text: string): string {
    return kind === null || text === '' ? text : this.#paint(colors[kind], text)
  }
}
