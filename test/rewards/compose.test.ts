import test from 'ava'
import { SsrlError } from '../../lib/errors.ts'
import { compose, defaultReward, type RewardPart, rewards, runReward } from '../../lib/rewards/index.ts'
import { answering, makeTrajectory } from './make-trajectory.ts'

const full = (answer: string) =>
  makeTrajectory(
    `<think>a</think><search>q</search><information>i</information><think>b</think><answer>${answer}</answer>`,
    ['x'],
  )
const batch = [
  full('x'),
  full('y'),
  answering('x', ['x']),
  makeTrajectory('<answer>x</answer>', ['x']),
  makeTrajectory('', ['x']),
]

test("the default is 0.9 exact match + 0.1 format, the paper's four cases included", async (t) => {
  t.deepEqual(await runReward(defaultReward(), batch), [1, 0.1, 0.9 + 0.05, 0.9, 0])
})

test('the share of the format is a setting, and so is its rule', async (t) => {
  const loose = makeTrajectory('<think>a</think> so <answer>y</answer>', ['x'])
  t.deepEqual(
    await runReward(defaultReward({ formatWeight: 0.5 }), [...batch, loose]),
    [1, 0.5, 0.75, 0.5, 0, 0],
  )
  t.deepEqual(await runReward(defaultReward({ formatWeight: 0.5, format: 'reference' }), [loose]), [0.25])
})

test('parts are weighted, and their own values can be had by name', async (t) => {
  const composed = compose([
    { reward: rewards.exactMatch, weight: 2 },
    { name: 'length', reward: (trajectories) => trajectories.map(({ text }) => text.length), weight: -0.5 },
  ])
  const context = { signal: new AbortController().signal }
  const { total, parts } = await composed.breakdown([answering('x', ['x'])], context)
  t.deepEqual(parts, { exactMatch: [1], length: [35] })
  t.deepEqual(total, [2 - 17.5])
  t.deepEqual(await composed([answering('x', ['x'])], context), total)
})

test('a part without a score is left out of the sum; without any score there is none', async (t) => {
  const composed = compose([
    { name: 'a', reward: () => [null, null, 1] },
    { name: 'b', reward: () => [null, 2, 2] },
  ])
  t.deepEqual(await runReward(composed, batch.slice(0, 3)), [null, 2, 3])
})

test('a part that fails names itself', async (t) => {
  const composed = compose([
    {
      name: 'mine',
      reward: () => {
        throw new Error('boom')
      },
    },
  ])
  const error = await t.throwsAsync(() => runReward(composed, batch), { instanceOf: SsrlError })
  t.is(error.code, 'ERR_REWARD')
  t.regex(error.message, /"mine" threw: boom/)
})

test('each part has a time limit of its own', async (t) => {
  const composed = compose([{ name: 'slow', reward: () => new Promise(() => {}), timeout: 10 }])
  const error = await t.throwsAsync(() => runReward(composed, batch), { instanceOf: SsrlError })
  t.is(error.code, 'ERR_TIMEOUT')
})

const part = { reward: rewards.f1 }
const refused: [string, () => unknown][] = [
  ['no parts', () => compose([])],
  ['no list', () => compose(part as unknown as RewardPart[])],
  ['a part without a function', () => compose([{} as RewardPart])],
  ['a weight that is not finite', () => compose([{ ...part, weight: Number.NaN }])],
  ['a weight that is no number', () => compose([{ ...part, weight: '1' as unknown as number }])],
  ['two parts of one name', () => compose([part, part])],
  ['a format share above 1', () => defaultReward({ formatWeight: 1.1 })],
  ['a format share of NaN', () => defaultReward({ formatWeight: Number.NaN })],
]
for (const [title, call] of refused) {
  test(`${title} is ERR_INVALID_CONFIG`, (t) => {
    t.is(t.throws(call, { instanceOf: SsrlError }).code, 'ERR_INVALID_CONFIG')
  })
}
