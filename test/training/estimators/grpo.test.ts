import test from 'ava'
import fc from 'fast-check'
import {
  countConstantGroups,
  type EstimatorSettings,
  estimate,
} from '../../../lib/training/estimators/index.ts'
import { standardDeviation } from '../../../lib/training/estimators/whiten.ts'

const byGroup = { scaleRewards: 'group', advantageEpsilon: 1e-6, gamma: 1, gaeLambda: 1 } as const

function groupAdvantages(
  rewards: readonly (number | null)[],
  groups: readonly number[],
  settings: EstimatorSettings,
) {
  const scored = rewards.map((reward, index) => ({
    group: groups[index]!,
    reward,
    mask: Uint8Array.of(0, 1, 1),
  }))
  const values = estimate(scored, { ...settings, estimator: 'grpo' }).advantages as (number | null)[]
  return { values, zeroVarianceGroups: countConstantGroups(rewards, groups) }
}

test('an advantage is the distance from the mean of the group over its sample standard deviation', (t) => {
  const { values } = groupAdvantages([1, 0, 0, 0], [0, 0, 0, 0], byGroup)
  t.is(values[0], 0.75 / (0.5 + 1e-6))
  t.is(values[1], -0.25 / (0.5 + 1e-6))
})

test('eight equal rewards of 0.9 give advantages of exactly 0', (t) => {
  const rewards = Array.from({ length: 8 }, () => Math.fround(0.9))
  const { values, zeroVarianceGroups } = groupAdvantages(
    rewards,
    rewards.map(() => 3),
    byGroup,
  )
  t.deepEqual(
    values,
    rewards.map(() => 0),
  )
  t.is(zeroVarianceGroups, 1)
})

test('groups do not see each other', (t) => {
  const alone = groupAdvantages([1, 0, 0.5], [0, 0, 0], byGroup).values
  const together = groupAdvantages([1, 7, 0, 8, 0.5], [0, 1, 0, 1, 0], byGroup).values
  t.deepEqual([together[0], together[2], together[4]], alone)
})

test('a null reward leaves its group: the others are as if it were not there', (t) => {
  const without = groupAdvantages([1, 0, 0.5], [0, 0, 0], byGroup)
  const withNull = groupAdvantages([1, null, 0, 0.5], [0, 0, 0, 0], byGroup)
  t.deepEqual(withNull.values, [without.values[0]!, null, without.values[1]!, without.values[2]!])
})

test('a group of one reward and nulls teaches nothing', (t) => {
  const { values, zeroVarianceGroups } = groupAdvantages([0.3, null], [0, 0], byGroup)
  t.deepEqual(values, [0, null])
  t.is(zeroVarianceGroups, 1)
})

test('scaleRewards none keeps plain differences, batch divides by the deviation of all rewards', (t) => {
  const rewards = [1, 0, 0, 0, 0.5, 0.1]
  const groups = [0, 0, 0, 0, 1, 1]
  const plain = groupAdvantages(rewards, groups, {
    scaleRewards: 'none',
    advantageEpsilon: 1e-6,
    gamma: 1,
    gaeLambda: 1,
  }).values
  t.deepEqual(plain.slice(0, 2), [0.75, -0.25])
  const batch = groupAdvantages(rewards, groups, {
    scaleRewards: 'batch',
    advantageEpsilon: 1e-6,
    gamma: 1,
    gaeLambda: 1,
  }).values
  const scale = standardDeviation(rewards) + 1e-6
  t.deepEqual(
    batch,
    plain.map((value) => value! / scale),
  )
})

test('advantages of a group add up to 0, and keep the order of the rewards', (t) => {
  const group = fc.array(
    fc.integer({ min: 0, max: 20 }).map((value) => value / 20),
    { minLength: 2, maxLength: 12 },
  )
  fc.assert(
    fc.property(group, (rewards) => {
      const { values } = groupAdvantages(
        rewards,
        rewards.map(() => 0),
        byGroup,
      )
      t.true(Math.abs(values.reduce<number>((sum, value) => sum + value!, 0)) < 1e-6)
      for (const [i, a] of rewards.entries()) {
        for (const [j, b] of rewards.entries()) if (a > b) t.true(values[i]! > values[j]!)
      }
    }),
  )
})

test('rewards of tokens that are learnt from are part of the reward of the trajectory', (t) => {
  const mask = Uint8Array.of(0, 1, 1)
  const scored = [
    { group: 0, reward: 1, mask, tokenRewards: Float32Array.of(9, -0.25, -0.25) },
    { group: 0, reward: 0, mask, tokenRewards: Float32Array.of(9, 0, 0) },
  ]
  const { advantages } = estimate(scored, { ...byGroup, scaleRewards: 'none', estimator: 'grpo' })
  t.deepEqual(advantages, [0.25, -0.25])
})
