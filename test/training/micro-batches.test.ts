import test from 'ava'
import fc from 'fast-check'
import { microBatches } from '../../lib/training/micro-batches.ts'

test('sequences are cut where the budget would be passed', (t) => {
  t.deepEqual(microBatches([4, 4, 3, 9, 1], 8), [
    { start: 0, end: 2 },
    { start: 2, end: 3 },
    { start: 3, end: 4 },
    { start: 4, end: 5 },
  ])
})

test('a sequence above the budget stands alone', (t) => {
  t.deepEqual(microBatches([100, 1], 8), [
    { start: 0, end: 1 },
    { start: 1, end: 2 },
  ])
})

test('every sequence is in one batch, in order, and no batch of several is above the budget', (t) => {
  const lengths = fc.array(fc.integer({ min: 1, max: 50 }))
  fc.assert(
    fc.property(lengths, fc.integer({ min: 1, max: 120 }), (list, budget) => {
      const batches = microBatches(list, budget)
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
