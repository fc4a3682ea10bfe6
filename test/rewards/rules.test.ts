import test from 'ava'
import fc from 'fast-check'
import { type RewardFunction, rewards, runReward } from '../../lib/rewards/index.ts'
import type { Trajectory } from '../../lib/rollout/trajectory.ts'
import { answering, makeTrajectory } from './make-trajectory.ts'

const score = (reward: RewardFunction, ...trajectories: Trajectory[]) => runReward(reward, trajectories)
const answerRewards = {
  exactMatch: rewards.exactMatch,
  f1: rewards.f1,
  coverExactMatch: rewards.coverExactMatch,
}

test('exactMatch is 1 for a normalised golden answer, else 0', async (t) => {
  const values = await score(
    rewards.exactMatch,
    answering(' The PARIS. ', ['Rome', 'Paris']),
    answering('Paris, France', ['Paris']),
  )
  t.deepEqual(values, [1, 0])
})

test('f1 is the token overlap', async (t) => {
  t.deepEqual(
    await score(rewards.f1, answering('New York City', ['York']), answering('yes', ['yes sir'])),
    [0.5, 0],
  )
})

test('coverExactMatch is 1 when the answer contains a golden one', async (t) => {
  const values = await score(
    rewards.coverExactMatch,
    answering('in Paris', ['Paris']),
    answering('Paris', ['in Paris']),
  )
  t.deepEqual(values, [1, 0])
})

test('the last answer counts', async (t) => {
  const two = makeTrajectory('<answer>x</answer> <answer>y</answer>', ['x'])
  t.deepEqual(await score(rewards.exactMatch, two), [0])
})

for (const [name, reward] of Object.entries(answerRewards)) {
  test(`${name}: an empty or missing answer scores 0, even where the golden answer normalises to nothing`, async (t) => {
    const values = await score(
      reward,
      makeTrajectory('no answer', ['The The']),
      answering('', ['!!!']),
      answering('the', ['The The', '!!!']),
      answering('x', []),
    )
    t.deepEqual(values, [0, 0, 0, 0])
  })

  test(`${name}: a golden answer that normalises to nothing pays for no answer`, async (t) => {
    t.deepEqual(await score(reward, answering('x', ['!!!']), answering('x', ['!!!', 'x'])), [0, 1])
  })

  test(`${name}: a golden answer itself always scores 1 and every score is in [0, 1]`, async (t) => {
    await fc.assert(
      fc.asyncProperty(fc.stringMatching(/^[b-z]{2,9}$/), fc.string(), async (golden, other) => {
        const [own, any] = await score(reward, answering(golden, [other, golden]), answering(other, [golden]))
        t.is(own, 1)
        t.true(any! >= 0 && any! <= 1)
      }),
    )
  })
}

test('format is the strict score and formatReward chooses the rule', async (t) => {
  const loose = makeTrajectory('<think>a</think> so <answer>x</answer>', ['x'])
  t.deepEqual(await score(rewards.format, loose, answering('x', ['x'])), [0, 0.5])
  t.deepEqual(await score(rewards.formatReward('reference'), loose), [0.5])
})

test('the example in the prompt is not graded: rewards see the completion only', async (t) => {
  t.deepEqual(await score(rewards.exactMatch, makeTrajectory('I do not know', ['Beijing'])), [0])
})

test('majorityVote takes the answer that most of a group gave as its label', async (t) => {
  const values = await score(
    rewards.majorityVote,
    answering('x', [], 0),
    answering('y', [], 1),
    answering('The X!', [], 0),
    answering('z', [], 0),
    answering('y', [], 1),
    makeTrajectory('', [], 1),
  )
  t.deepEqual(values, [1, 1, 1, 0, 1, 0])
})

test('majorityVote: of answers with equal votes the first is the label', async (t) => {
  t.deepEqual(await score(rewards.majorityVote, answering('x', []), answering('y', [])), [1, 0])
})

test('majorityVote: a group without answers scores 0', async (t) => {
  t.deepEqual(await score(rewards.majorityVote, makeTrajectory('', []), answering('!!!', [])), [0, 0])
})
