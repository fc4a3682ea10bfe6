import test from 'ava'
import { estimate } from '../../../lib/training/estimators/index.ts'

const settings = {
  estimator: 'rloo',
  scaleRewards: 'group',
  advantageEpsilon: 1e-6,
  gamma: 1,
  gaeLambda: 1,
} as const
const mask = Uint8Array.of(1)
const rloo = (rewards: (number | null)[], groups = rewards.map(() => 0)) =>
  estimate(
    rewards.map((reward, index) => ({ group: groups[index]!, reward, mask })),
    settings,
  ).advantages as (number | null)[]

test('the baseline of a trajectory is the mean reward of the others of its group', (t) => {
  const values = rloo([1, 0, 0.5, 0])
  // 1 - (0 + 0.5 + 0) / 3, 0 - (1 + 0.5 + 0) / 3, 0.5 - (1 + 0 + 0) / 3
  const expected = [5 / 6, -1 / 2, 1 / 6, -1 / 2]
  for (const [index, value] of values.entries()) t.true(Math.abs(value! - expected[index]!) < 1e-15)
})

test('a null reward is none of the others, and groups do not see each other', (t) => {
  t.deepEqual(rloo([1, null, 0, 7, 3], [0, 0, 0, 1, 1]), [1, null, -1, 4, -4])
})

test('equal rewards, and a trajectory alone, get exactly 0', (t) => {
  t.deepEqual(rloo([0.9, 0.9, 0.9]), [0, 0, 0])
  t.deepEqual(rloo([0.3, null]), [0, null])
})
