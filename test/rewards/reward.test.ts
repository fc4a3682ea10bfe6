import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import { SsrlError } from '../../lib/errors.ts'
import { type RewardFunction, runReward } from '../../lib/rewards/index.ts'
import { answering } from './make-trajectory.ts'

const two = [answering('x', ['x']), answering('y', ['x'])]

test('synchronous and asynchronous rewards give their values in order', async (t) => {
  t.deepEqual(await runReward(() => [1, 2], two), [1, 2])
  t.deepEqual(await runReward(async () => [1, null], two), [1, null])
})

test('a typed array is taken as well as a list', async (t) => {
  const reward = (() => Float64Array.of(0.5, 1)) as unknown as RewardFunction
  t.deepEqual(await runReward(reward, two), [0.5, 1])
})

test('a reward gets the trajectories, the step and a signal', async (t) => {
  await runReward(
    (trajectories, context) => {
      t.is(trajectories, two)
      t.is(context.step, 7)
      t.false(context.signal.aborted)
      return [0, 0]
    },
    two,
    { step: 7 },
  )
})

const bad: [string, unknown, RegExp][] = [
  [
    'throws',
    () => {
      throw new Error('boom')
    },
    /"bad" threw: boom/,
  ],
  [
    'throws something that is no error',
    () => {
      throw 'text'
    },
    /threw: text/,
  ],
  [
    'rejects',
    async () => {
      throw new TypeError('late')
    },
    /threw: late/,
  ],
  ['returns too few values', () => [1], /2 values.*received 1/],
  ['returns too many values', () => [1, 2, 3], /2 values.*received 3/],
  ['returns no list', () => 1, /an array.*number/],
  ['returns null', () => null, /an array.*null/],
  ['returns nothing', () => undefined, /an array.*undefined/],
  ['returns NaN', () => [1, Number.NaN], /trajectory 1.*NaN/],
  ['returns infinity', () => [Number.POSITIVE_INFINITY, 1], /trajectory 0.*Infinity/],
  ['returns a text as value', () => ['1', 1], /trajectory 0.*string/],
  ['returns undefined as value', () => [1, undefined], /trajectory 1.*undefined/],
  ['returns a hole', () => new Array(2), /trajectory 0.*undefined/],
]
for (const [title, reward, message] of bad) {
  test(`a reward that ${title} is ERR_REWARD`, async (t) => {
    const call = () => runReward(reward as RewardFunction, two, { name: 'bad' })
    const error = await t.throwsAsync(call, { instanceOf: SsrlError })
    t.is(error.code, 'ERR_REWARD')
    t.regex(error.message, message)
  })
}

test('what a reward threw is the cause of its error', async (t) => {
  const cause = new Error('boom')
  const error = await t.throwsAsync(() => runReward(() => Promise.reject(cause), two))
  t.is(error?.cause, cause)
})

test('a reward that never settles is ERR_TIMEOUT, and its signal fires', async (t) => {
  let seen: AbortSignal | undefined
  const hanging: RewardFunction = (_, { signal }) => {
    seen = signal
    return new Promise(() => {})
  }
  const error = await t.throwsAsync(() => runReward(hanging, two, { timeout: 20 }), { instanceOf: SsrlError })
  t.is(error.code, 'ERR_TIMEOUT')
  t.regex(error.message, /"hanging".*20 ms/)
  t.is(seen?.reason, error)
})

test('a reward that fails after its time is up does not disturb the process', async (t) => {
  const late: RewardFunction = async () => {
    await delay(40)
    throw new Error('too late')
  }
  await t.throwsAsync(() => runReward(late, two, { timeout: 10 }))
  await delay(60)
  t.deepEqual(await runReward(() => [1, 1], two), [1, 1])
})

test('an abort rejects with its reason, before and during the call', async (t) => {
  const reason = new Error('stop')
  t.is(await t.throwsAsync(() => runReward(() => [1, 1], two, { signal: AbortSignal.abort(reason) })), reason)
  const controller = new AbortController()
  const call = runReward(() => new Promise(() => {}), two, { signal: controller.signal })
  controller.abort(reason)
  t.is(await t.throwsAsync(() => call), reason)
})

test('something else than a function is ERR_INVALID_ARG, and so is a time-out of 0', async (t) => {
  for (const call of [
    () => runReward(3 as unknown as RewardFunction, two),
    () => runReward(() => [1, 1], two, { timeout: 0 }),
    () => runReward(() => [1, 1], two, { timeout: Number.NaN }),
  ]) {
    t.is((await t.throwsAsync(call, { instanceOf: SsrlError })).code, 'ERR_INVALID_ARG')
  }
})

test('an endless time-out is possible', async (t) => {
  const slow: RewardFunction = async () => {
    await delay(5)
    return [1, 1]
  }
  t.deepEqual(await runReward(slow, two, { timeout: Number.POSITIVE_INFINITY }), [1, 1])
})
