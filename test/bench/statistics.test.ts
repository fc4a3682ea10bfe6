import test from 'ava'
import { quantile, summarize } from '../../bench/statistics.ts'

test('a quantile lies between its neighbours by straight line, whatever the order of the values', (t) => {
  t.is(quantile([4, 1, 3, 2], 0.5), 2.5)
  t.is(quantile([10, 20, 30, 40, 50, 60], 0.2), 20)
  t.is(quantile([10, 20, 30, 40, 50, 60], 0.8), 50)
  t.is(quantile([7], 0.2), 7)
  t.is(quantile([], 0.5), Number.NaN)
})

test('a summary has median, p20, p80 and the number of samples, and leaves the values as they are', (t) => {
  const values = [3, 1, 2]
  t.deepEqual(summarize(values), { median: 2, p20: 1.4, p80: 2.6, samples: 3 })
  t.deepEqual(values, [3, 1, 2])
})
