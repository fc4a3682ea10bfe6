import test from 'ava'
import { estimate, type Scored } from '../../../lib/training/estimators/index.ts'
import { standardDeviation } from '../../../lib/training/estimators/whiten.ts'

const epsilon = 1e-6
const gae = (scored: Scored[], gamma = 1, gaeLambda = 1) =>
  estimate(scored, {
    estimator: 'gae',
    scaleRewards: 'group',
    advantageEpsilon: epsilon,
    gamma,
    gaeLambda,
  })

const close = (a: number, b: number) => Math.abs(a - b) < 1e-6
const mask = Uint8Array.of(0, 1, 0, 1, 1)
const values = Float32Array.of(9, 0.5, 9, 0.25, 0.75)

test('with γ = λ = 1 the return of every token is the reward, and advantages are what values fell short of it', (t) => {
  const { advantages, returns } = gae([{ group: 0, reward: 1, mask, values }])
  t.deepEqual([...returns![0]!], [0, 1, 0, 1, 1])
  // 0.5, 0.75 and 0.25: mean 0.5, sample deviation 0.25.
  const expected = [0, 0, 0, 0.25 / (0.25 + epsilon), -0.25 / (0.25 + epsilon)]
  for (const [index, value] of (advantages[0] as Float32Array).entries())
    t.true(close(value, expected[index]!))
})

test('δ and A by hand: masked tokens are skipped, and the token after them comes next', (t) => {
  const { returns } = gae([{ group: 0, reward: 2, mask, values }], 0.5, 0.5)
  // Last: δ = 2 - 0.75 = 1.25. Before: δ = 0.5 · 0.75 - 0.25 = 0.125, A = 0.125 + 0.25 · 1.25 = 0.4375.
  // First: δ = 0.5 · 0.25 - 0.5 = -0.375, A = -0.375 + 0.25 · 0.4375 = -0.265625.
  t.deepEqual([...returns![0]!], [0, -0.265625 + 0.5, 0, 0.4375 + 0.25, 1.25 + 0.75])
})

test('rewards of tokens come where they are earned', (t) => {
  const tokenRewards = Float32Array.of(7, -0.25, 7, -0.5, -0.125)
  const { returns } = gae([{ group: 0, reward: 1, mask, values, tokenRewards }])
  t.deepEqual([...returns![0]!], [0, 0.125, 0, 0.375, 0.875])
})

test('advantages are whitened over the tokens of all trajectories; a null reward takes no part', (t) => {
  const two = [
    { group: 0, reward: 1, mask, values },
    { group: 1, reward: null, mask, values },
    { group: 2, reward: 0, mask, values },
  ]
  const { advantages, returns } = gae(two)
  t.is(advantages[1], null)
  t.is(returns![1], null)
  const all = [advantages[0], advantages[2]].flatMap((one) =>
    [...(one as Float32Array)].filter((_, index) => mask[index]),
  )
  t.true(
    close(
      all.reduce((sum, value) => sum + value, 0),
      0,
    ),
  )
  t.true(Math.abs(standardDeviation(all) - 1) < 1e-4)
})
