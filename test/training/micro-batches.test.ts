import test from 'ava'
import fc from 'fast-check'
import { microBatches } from '../../lib/training/micro-batches.ts'

/** A sequence of which all tokens but those of the prompt are learnt; different `id`s share no token. */
function sequence(length: number, id: number, prompt = 1) {
  const tokens = Int32Array.from({ length }, (_, t) => (t < prompt ? 1000 * id + t : -length * 100 - t))
  return { tokens, lossMask: Uint8Array.from({ length: length - 1 }, (_, t) => (t < prompt - 1 ? 0 : 1)) }
}

const unlike = (lengths: readonly number[]) => lengths.map((length, id) => sequence(length, id))

test('sequences are cut where the budget would be passed', (t) => {
  t.deepEqual(microBatches(unlike([4, 4, 3, 9, 1]), 8), [
    { start: 0, end: 2 },
    { start: 2, end: 3 },
    { start: 3, end: 4 },
    { start: 4, end: 5 },
  ])
})

test('a sequence above the budget stands alone', (t) => {
  t.deepEqual(microBatches(unlike([100, 1]), 8), [
    { start: 0, end: 1 },
    { start: 1, end: 2 },
  ])
})

test('a prompt counts once for neighbours that share it, up to the row that predicts their first own token', (t) => {
  // 10 prompt tokens: 9 rows are shared, so that the two take 14 + (13 - 9) tokens, and a third 12 - 9 more.
  const group = [sequence(14, 7, 10), sequence(13, 7, 10), sequence(12, 7, 10)]
  t.deepEqual(microBatches(group, 21), [{ start: 0, end: 3 }])
  t.deepEqual(microBatches(group, 20), [
    { start: 0, end: 2 },
    { start: 2, end: 3 },
  ])
  // What a run begins with counts whole, whatever the one before it had.
  t.deepEqual(microBatches(group, 17), [
    { start: 0, end: 1 },
    { start: 1, end: 3 },
  ])
})

test('a run that is at least half full ends between two groups rather than inside of one', (t) => {
  // Groups of 3: 14 + 2 * 5 tokens.
  const groups = [1, 2, 3].flatMap((id) => [0, 1, 2].map(() => sequence(14, id, 10)))
  t.deepEqual(microBatches(groups, 46), [
    { start: 0, end: 3 },
    { start: 3, end: 6 },
    { start: 6, end: 9 },
  ])
  t.deepEqual(microBatches(groups, 48), [
    { start: 0, end: 6 },
    { start: 6, end: 9 },
  ])
  // The first group is less than half of what fits.
  t.deepEqual(microBatches(groups.slice(2), 52), [
    { start: 0, end: 4 },
    { start: 4, end: 7 },
  ])
})

test('rows that are learnt from are not shared, nor is anything behind them', (t) => {
  const learnt = sequence(14, 7, 10)
  learnt.lossMask[2] = 1
  const pair = [learnt, sequence(13, 7, 10)]
  t.deepEqual(microBatches(pair, 14 + 13 - 2), [{ start: 0, end: 2 }])
  t.is(microBatches(pair, 14 + 13 - 3).length, 2)
})

test('every sequence is in one batch, in order, and no batch of several is above the budget', (t) => {
  const lengths = fc.array(fc.integer({ min: 1, max: 50 }))
  fc.assert(
    fc.property(lengths, fc.integer({ min: 1, max: 120 }), (list, budget) => {
      const batches = microBatches(unlike(list), budget)
      t.deepEqual(
        batches.flatMap(({ start, end }) => list.slice(start, end)),
        list,
      )
      for (const { start, end } of batches) {
        const sum = list.slice(start, end).reduce((a, b) => a + b, 0)
        t.true(end - start === 1 || sum <= budget)
      }
    }),
  )
})
