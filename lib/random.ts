/**
 * Seeded random numbers whose whole state is four 32-bit integers, so that a checkpoint can hold it.
 * Generator: sfc32 (Chris Doty-Humphrey, PractRand), seeded by SplitMix32 steps.
 */
export class Random {
  #state: Uint32Array

  constructor(seed: number) {
    this.#state = new Uint32Array(4)
    // Both halves of the seed matter, so that 1 and 1 + 2^32 differ.
    let mixed = (Math.floor(seed / 2 ** 32) ^ 0x9e3779b9) >>> 0
    for (let i = 0; i < 4; i++) {
      mixed = (mixed + (seed >>> 0) + 0x9e3779b9) >>> 0
      let z = mixed
      z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
      this.#state[i] = z ^ (z >>> 15)
    }
    for (let i = 0; i < 12; i++) this.uint32()
  }

  /** The four words of the state; `restore` continues from them exactly. */
  get state(): number[] {
    return Array.from(this.#state)
  }

  static restore(state: readonly number[]): Random {
    const random = new Random(0)
    random.#state = Uint32Array.from(state)
    return random
  }

  /** An integer of [0, 2^32). */
  uint32(): number {
    const s = this.#state
    const sum = (s[0]! + s[1]! + s[3]!) >>> 0
    s[3] = s[3]! + 1
    s[0] = s[1]! ^ (s[1]! >>> 9)
    s[1] = s[2]! + (s[2]! << 3)
    s[2] = ((s[2]! << 21) | (s[2]! >>> 11)) + sum
    return sum
  }

  /** A float of [0, 1) with 53 random bits. */
  next(): number {
    return ((this.uint32() >>> 5) * 2 ** 26 + (this.uint32() >>> 6)) / 2 ** 53
  }

  /** An integer of [0, count). */
  integer(count: number): number {
    return Math.floor(this.next() * count)
  }

  /** True with the given probability. */
  chance(probability: number): boolean {
    return this.next() < probability
  }

  choice<T>(items: readonly T[]): T {
    if (items.length === 0) throw new RangeError('choice() of an empty list')
    return items[this.integer(items.length)]!
  }

  /** A shuffled copy (Fisher-Yates). */
  shuffle<T>(items: readonly T[]): T[] {
    const result = items.slice()
    for (let i = result.length - 1; i > 0; i--) {
      const j = this.integer(i + 1)
      const held = result[i]!
      result[i] = result[j]!
      result[j] = held
    }
    return result
  }
}
