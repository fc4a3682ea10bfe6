import test from 'ava'
import { klEstimate, klRewards } from '../../lib/training/kl.ts'
import type { LossSequence } from '../../lib/training/loss-batch.ts'

test('k1, k2 and k3 of one token', (t) => {
  const d = Math.log(2)
  t.is(klEstimate('k1', d), -Math.log(2))
  t.is(klEstimate('k2', d), Math.log(2) ** 2 / 2)
  t.true(Math.abs(klEstimate('k3', d) - (1 - Math.log(2))) < 1e-15)
  for (const kind of ['k1', 'k2', 'k3'] as const) t.is(Math.abs(klEstimate(kind, 0)), 0)
})

test('drawn from the policy, k1 and k3 are the KL on average', (t) => {
  const policy = [0.5, 0.3, 0.2]
  const reference = [0.2, 0.2, 0.6]
  const kl = policy.reduce((sum, p, i) => sum + p * Math.log(p / reference[i]!), 0)
  for (const kind of ['k1', 'k3'] as const) {
    const mean = policy.reduce((sum, p, i) => sum + p * klEstimate(kind, Math.log(reference[i]! / p)), 0)
    t.true(Math.abs(mean - kl) < 1e-12, kind)
  }
})

test('as a reward it is -beta·KL of the tokens that are learnt from', (t) => {
  const sequence = {
    lossMask: Uint8Array.of(0, 1, 1),
    oldLogProbs: Float32Array.of(-1, -1, -2),
    referenceLogProbs: Float32Array.of(-9, -1.5, -1),
  } as unknown as LossSequence
  t.deepEqual([...klRewards(sequence, { beta: 0.5, klEstimator: 'k1' })], [0, -0.25, 0.5])
  t.deepEqual([...klRewards(sequence, { beta: 0.5, klEstimator: 'k2' })], [0, -0.0625, -0.25])
})
