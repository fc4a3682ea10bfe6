import test from 'ava'
import { estimate, type Scored } from '../../../lib/training/estimators/index.ts'

const epsilon = 1e-6
const settings = { scaleRewards: 'group', advantageEpsilon: epsilon, gamma: 1, gaeLambda: 1 } as const
const plain = (scored: Scored[]) =>
  estimate(scored, { ...settings, estimator: 'reinforce_plus_plus' }).advantages
const baseline = (scored: Scored[]) =>
  estimate(scored, { ...settings, estimator: 'reinforce_plus_plus_baseline' }).advantages

const close = (a: number, b: number) => Math.abs(a - b) < 1e-6
const one = Uint8Array.of(0, 1)
const three = Uint8Array.of(1, 0, 1, 1)

test('returns are whitened over the tokens of the batch: a trajectory counts with each that is learnt from', (t) => {
  const values = plain([
    { group: 0, reward: 1, mask: one },
    { group: 0, reward: 0, mask: three },
  ]) as number[]
  // Tokens 1, 0, 0, 0: mean 1/4, variance (9/16 + 3/16) / 3 = 1/4.
  t.true(close(values[0]!, 0.75 / (0.5 + epsilon)))
  t.true(close(values[1]!, -0.25 / (0.5 + epsilon)))
})

test('with rewards of tokens the return of a token is the sum from it on, masked tokens skipped', (t) => {
  const [first, second] = plain([
    { group: 0, reward: 1, mask: three, tokenRewards: Float32Array.of(-0.5, 9, -0.25, -0.25) },
    { group: 1, reward: 0, mask: one, tokenRewards: Float32Array.of(9, 0) },
  ]) as [Float32Array, Float32Array]
  // Returns 0, 0.5, 0.75 and 0: mean 5/16, variance (2 · 25/256 + 9/256 + 49/256) / 3 = 27/192.
  const deviation = Math.sqrt(27 / 192) + epsilon
  const expected = [-5 / 16, 0, 3 / 16, 7 / 16].map((value) => value / deviation)
  for (const [index, value] of first.entries()) t.true(close(value, expected[index]!))
  t.is(second[0], 0)
  t.true(close(second[1]!, -5 / 16 / deviation))
})

test('null rewards stay out of the statistics, and equal returns give exactly 0', (t) => {
  const some = [
    { group: 0, reward: 0.9, mask: three },
    { group: 1, reward: null, mask: one },
    { group: 2, reward: 0.9, mask: one },
  ]
  t.deepEqual(plain(some), [0, null, 0])
  const two = plain([...some, { group: 3, reward: 0, mask: one }])
  t.deepEqual(
    two.filter((_, index) => index !== 1),
    plain([some[0]!, some[2]!, { group: 3, reward: 0, mask: one }]),
  )
})

test('the baseline form subtracts the mean of the group and divides by the deviation of the batch', (t) => {
  const values = baseline([
    { group: 0, reward: 1, mask: one },
    { group: 0, reward: 0, mask: one },
    { group: 1, reward: 0.25, mask: one },
    { group: 1, reward: 0, mask: one },
  ]) as number[]
  // Differences ±1/2 and ±1/8, mean 0, variance (2/4 + 2/64) / 3 = 17/96.
  const deviation = Math.sqrt(17 / 96) + epsilon
  const expected = [0.5, -0.5, 0.125, -0.125].map((value) => value / deviation)
  for (const [index, value] of values.entries()) t.true(close(value, expected[index]!))
})

test('the baseline form: a group of equal rewards is at the mean of the batch', (t) => {
  const values = baseline([
    { group: 0, reward: 1, mask: one },
    { group: 0, reward: 0, mask: one },
    { group: 1, reward: 0.9, mask: one },
    { group: 1, reward: 0.9, mask: one },
  ]) as number[]
  t.deepEqual(values.slice(2), [0, 0])
  t.true(values[0]! > 0)
})
