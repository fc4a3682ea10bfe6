import test from 'ava'
import { attachDriftWeights } from '../../lib/training/kl-cov.ts'
import type { LossSequence } from '../../lib/training/loss-batch.ts'

function sequence(oldLogProbs: number[], advantage: number | number[], mask = oldLogProbs.map(() => 1)) {
  return {
    lossMask: Uint8Array.from(mask),
    oldLogProbs: Float32Array.from(oldLogProbs),
    advantage: typeof advantage === 'number' ? advantage : Float32Array.from(advantage),
  } as unknown as LossSequence
}

const weights = (sequences: LossSequence[]) => sequences.map(({ driftWeights }) => [...driftWeights!])

test('the tokens of the largest covariance of log-prob and advantage are held', (t) => {
  // Mean log-prob -2, mean advantage 0: covariances 2, 1, -3 and -2, -1, 3.
  const sequences = [sequence([0, -1, -5], 1), sequence([0, -1, -5], -1)]
  attachDriftWeights(sequences, { klCovRatio: 0.4, klCovCoefficient: 1.5 })
  t.deepEqual(weights(sequences), [
    [1.5, 0, 0],
    [0, 0, 1.5],
  ])
})

test('masked tokens are not chosen and not counted, and one token is always held', (t) => {
  const sequences = [sequence([0, -1, -5], [1, 1, 1], [0, 1, 0]), sequence([-1, -9], -1, [1, 1])]
  attachDriftWeights(sequences, { klCovRatio: 2e-4, klCovCoefficient: 1 })
  t.deepEqual(weights(sequences), [
    [0, 0, 0],
    [0, 1],
  ])
})
