import test from 'ava'
import { rewards } from '../../lib/rewards/index.ts'
import { createTrajectory, TokenSource } from '../../lib/rollout/trajectory.ts'

/** A completion of `own` tokens of the policy and `found` of a search. */
function ofLength(own: number, found = 0) {
  const count = own + found
  return createTrajectory({
    questionId: 'q',
    question: 'q',
    goldenAnswers: [],
    promptTokens: new Int32Array(50),
    completionTokens: new Int32Array(count),
    pieces: Array.from({ length: count }, () => 'x'),
    logProbs: new Float32Array(count),
    entropies: new Float32Array(count),
    source: Uint8Array.from({ length: count }, (_, i) => (i < own ? TokenSource.policy : TokenSource.search)),
    finishReason: 'stop',
  })
}

const signal = new AbortController().signal

test('0 up to L - L_c, falling over the last L_c tokens to -1 at L, and -1 beyond', async (t) => {
  const penalty = rewards.overlongPenalty({ maxLength: 20, buffer: 8 })
  const lengths = [0, 11, 12, 13, 14, 16, 20, 25].map((length) => ofLength(length))
  t.deepEqual(await penalty(lengths, { signal }), [0, 0, 0, -1 / 8, -2 / 8, -4 / 8, -1, -1])
})

test('only what the policy wrote counts', async (t) => {
  const penalty = rewards.overlongPenalty({ maxLength: 20, buffer: 8 })
  t.deepEqual(await penalty([ofLength(10, 30)], { signal }), [0])
})

test('a buffer that is no part of the length is refused', (t) => {
  for (const buffer of [0, -1, 21, Number.NaN]) {
    t.throws(() => rewards.overlongPenalty({ maxLength: 20, buffer }), { code: 'ERR_INVALID_CONFIG' })
  }
})
