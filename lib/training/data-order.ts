import { Random } from '../random.ts'
import { derivedSeed } from '../random-seed.ts'

/**
 * Endless walk over `count` items, shuffled anew in every epoch (or in order, where that is wanted). The place in the walk is one number, so a checkpoint
 * holds it and a resumed run sees the same items.
 */
export class DataOrder {
  readonly count: number
  readonly seed: number
  /** Items handed out since the start. */
  cursor: number
  #epoch = -1
  #order: number[] = []

  readonly shuffled: boolean

  constructor(count: number, seed: number, cursor = 0, shuffled = true) {
    this.shuffled = shuffled
    this.count = count
    this.seed = seed
    this.cursor = cursor
  }

  /** Whole epochs that are done, as a fraction. */
  get epoch(): number {
    return this.cursor / this.count
  }

  /** The next `n` indices. */
  take(n: number): number[] {
    return Array.from({ length: n }, () => {
      const index = this.peek()
      this.cursor += 1
      return index
    })
  }

  /** The next index, which stays the next. */
  peek(): number {
    const epoch = Math.floor(this.cursor / this.count)
    const place = this.cursor % this.count
    if (!this.shuffled) return place
    if (epoch !== this.#epoch) {
      const indices = Array.from({ length: this.count }, (_, index) => index)
      this.#order = new Random(derivedSeed(this.seed, epoch)).shuffle(indices)
      this.#epoch = epoch
    }
    return this.#order[place]!
  }
}
