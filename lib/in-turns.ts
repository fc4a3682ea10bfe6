import { setImmediate } from 'node:timers/promises'

/** Longest time, in milliseconds, that work on a list keeps the event loop to itself. */
const turn = 8

/**
 * `items.map(work)`, but in short turns: timers, signals and sockets are served between them, however long the list.
 *
 * @param signal stops between two turns, with its reason
 */
export async function inTurns<T, R>(
  items: readonly T[],
  work: (item: T, index: number) => R,
  signal?: AbortSignal,
): Promise<R[]> {
  const results: R[] = []
  let started = performance.now()
  for (const [index, item] of items.entries()) {
    if (performance.now() - started > turn) {
      await setImmediate()
      signal?.throwIfAborted()
      started = performance.now()
    }
    results.push(work(item, index))
  }
  return results
}
