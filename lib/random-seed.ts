import { Random } from './random.ts'

/** A seed of 53 bits for one purpose (a step, a question, an epoch), which depends on every part. */
export function derivedSeed(...parts: number[]): number {
  let seed = 0
  for (const part of parts) {
    const random = new Random(seed)
    const mixed = new Random(part)
    seed = Math.floor(((random.next() + mixed.next()) % 1) * 2 ** 53)
  }
  return seed
}
