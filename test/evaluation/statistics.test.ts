import test from 'ava'
import fc from 'fast-check'
import { SsrlError } from '../../lib/errors.ts'
import {
  bootstrapIntervals,
  majorityAtK,
  passAtK,
  quantile,
  sampleSizes,
} from '../../lib/evaluation/statistics.ts'

function binomial(n: number, k: number): number {
  let value = 1
  for (let i = 1; i <= k; i++) value *= (n - k + i) / i
  return k > n ? 0 : value
}

test('pass@k is 1 - C(n-c, k)/C(n, k)', (t) => {
  for (let n = 1; n <= 12; n++) {
    for (let c = 0; c <= n; c++) {
      for (let k = 1; k <= n; k++) {
        t.true(Math.abs(passAtK(n, c, k) - (1 - binomial(n - c, k) / binomial(n, k))) < 1e-12)
      }
    }
  }
})

test('pass@1 is the share of right samples and pass@k never falls with k', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2000 }), fc.nat(2000), (n, right) => {
      const c = right % (n + 1)
      const values = sampleSizes(n).map((k) => passAtK(n, c, k))
      const rising = values.every((value, i) => i === 0 || value >= values[i - 1]! - 1e-12)
      return rising && Math.abs(values[0]! - c / n) < 1e-12 && values.at(-1) === (c > 0 ? 1 : 0)
    }),
  )
  t.pass()
})

for (const [n, c, k] of [
  [4, 5, 1],
  [4, -1, 1],
  [4, 2, 5],
  [4, 2, 0],
  [4, 1.5, 1],
] as const) {
  test(`pass@${k} of ${c} right among ${n} is ERR_INVALID_ARG`, (t) => {
    t.is(t.throws(() => passAtK(n, c, k), { instanceOf: SsrlError }).code, 'ERR_INVALID_ARG')
  })
}

test('maj@k is the mean over disjoint blocks of k samples', (t) => {
  const predictions = ['x', 'X!', 'y', 'y', 'y', 'x', 'x']
  t.is(majorityAtK(predictions, ['x'], 3), 0.5)
  t.is(majorityAtK(predictions, ['x'], 7), 1)
  t.is(majorityAtK(predictions, ['x'], 1), 4 / 7)
})

test('of answers with equal votes the first counts, and blank answers do not vote', (t) => {
  t.is(majorityAtK(['x', 'y'], ['x'], 2), 1)
  t.is(majorityAtK(['y', 'x'], ['x'], 2), 0)
  t.is(majorityAtK(['', '', 'x'], ['x'], 3), 1)
  t.is(majorityAtK(['', '!!!'], ['The'], 2), 0)
})

test('maj@k of more samples than there are is ERR_INVALID_ARG', (t) => {
  t.is(t.throws(() => majorityAtK(['x'], ['x'], 2), { instanceOf: SsrlError }).code, 'ERR_INVALID_ARG')
})

test('sample sizes are the powers of two below n, and n', (t) => {
  t.deepEqual(sampleSizes(1), [1])
  t.deepEqual(sampleSizes(2), [1, 2])
  t.deepEqual(sampleSizes(12), [1, 2, 4, 8, 12])
})

test('quantiles lie between neighbours', (t) => {
  t.is(quantile([1, 2, 4], 0.5), 2)
  t.is(quantile([1, 2, 4], 0.75), 3)
  t.is(quantile([5], 0.975), 5)
})

test('the bootstrap interval of a share has the width that the normal approximation gives', (t) => {
  const n = 400
  const sums = Float64Array.from({ length: n }, (_, i) => (i % 4 === 0 ? 1 : 0))
  const [[low, high]] = bootstrapIntervals([sums], new Float64Array(n).fill(1), {
    seed: 5,
    resamples: 4000,
  }) as [[number, number]]
  const half = 1.96 * Math.sqrt((0.25 * 0.75) / n)
  t.true(Math.abs(low - (0.25 - half)) < 0.006 && Math.abs(high - (0.25 + half)) < 0.006)
})

test('the samples of one question are drawn together', (t) => {
  const pooled = bootstrapIntervals([Float64Array.of(4, 0)], Float64Array.of(4, 4), { seed: 1 })
  t.deepEqual(pooled, [[0, 1]])
})

test('a metric that never varies has an interval of no width', (t) => {
  t.deepEqual(bootstrapIntervals([Float64Array.of(0.5, 0.5)], Float64Array.of(1, 1)), [[0.5, 0.5]])
  t.deepEqual(bootstrapIntervals([new Float64Array()], new Float64Array()), [[0, 0]])
})
