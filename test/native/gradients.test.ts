import test from 'ava'
import {
  loadNative,
  type NativeLearnerBatch,
  type NativeLossOptions,
  type NativeModelConfig,
  type NativePolicy,
} from '../../lib/native.ts'
import { initializeNativePolicy } from '../helpers/fixture-policy.ts'
import { flatten } from '../helpers/reference.ts'

const learnerOptions = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, activationBudget: 2 ** 30 }
const sequences = [1, 5, 70, 33, 2].map((length, s) =>
  Int32Array.from({ length }, (_, t) => (s * 41 + t * 23 + ((t * t) % 7)) % 61),
)
const count = sequences.reduce((sum, { length }) => sum + length - 1, 0)
const values = (make: (i: number) => number) => Float32Array.from({ length: count }, (_, i) => make(i))
const perSequence = (make: (s: number) => number) =>
  Float32Array.from(sequences.flatMap(({ length }, s) => new Array(length - 1).fill(make(s))))
const batch = {
  ...flatten(sequences),
  weights: values((i) => (i % 5 === 2 ? 0 : (1 + (i % 3)) / 40)),
  advantages: values((i) => 0.9 - 0.5 * (i % 4)),
  oldLogProbs: null as Float32Array | null,
  referenceLogProbs: null as Float32Array | null,
}
const sft: NativeLossOptions = {
  type: 'sft',
  temperature: 1,
  epsilon: 0,
  epsilonHigh: 0,
  dualClip: 0,
  beta: 0,
}
const policyGradient: NativeLossOptions = {
  type: 'policy-gradient',
  temperature: 0.7,
  // Far from the clips: at a kink there is no derivative to compare with.
  epsilon: 10,
  epsilonHigh: 10,
  dualClip: 0,
  beta: 0.3,
}

/** A loss, and what its batch has beside the others'. */
interface Case {
  loss: NativeLossOptions
  extra?: Partial<NativeLearnerBatch>
  /** Of log p - log p_old. */
  logRatio?: (i: number) => number
}

const losses: Record<string, Case> = {
  sft: { loss: sft },
  policy: { loss: policyGradient },
  'policy, one ratio a sequence,': {
    loss: { ...policyGradient, klEstimator: 'k2' },
    // The ratio of a sequence has one advantage.
    extra: { sequenceRatio: true, advantages: perSequence((s) => 0.9 - 0.5 * s) },
  },
  'policy, with drift and k1,': {
    loss: { ...policyGradient, klEstimator: 'k1' },
    extra: { driftWeights: values((i) => (i % 3 === 0 ? 1.5 : 0)) },
    // An absolute value has no derivative at 0.
    logRatio: (i) => (i % 2 === 0 ? 1.5 : -1.5),
  },
}

const models: Record<string, Partial<NativeModelConfig>> = {
  'llama, tied': {},
  'llama, untied, all biases': { tieWordEmbeddings: false, qkvBias: true, outputBias: true, mlpBias: true },
  'qwen2, 3 query heads a key head': { qkvBias: true, numHeads: 3, numKvHeads: 1 },
  'qwen3, wide heads': { qkNorm: true, headDim: 22, numHeads: 4, numKvHeads: 4 },
  'llama 3 rope': {
    ropeScaling: { factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 32 },
  },
}

/** The derivative of the loss along the parameter's own gradient, by central differences of fourth order. */
async function differences(
  policy: NativePolicy,
  name: string,
  gradient: Float32Array,
  lossAt: () => Promise<number>,
) {
  const weights = await policy.readParameter(name)
  const norm = Math.sqrt(gradient.reduce((sum, value) => sum + value * value, 0))
  const step = 1e-3 * Math.sqrt(weights.reduce((sum, value) => sum + value * value, 1e-2))
  const losses = []
  for (const steps of [2, 1, -1, -2]) {
    await policy.writeParameter(
      name,
      weights.map((value, i) => value + (steps * step * gradient[i]!) / norm),
    )
    losses.push(await lossAt())
  }
  await policy.writeParameter(name, weights)
  const [twoUp, up, down, twoDown] = losses as [number, number, number, number]
  return { expected: (8 * (up - down) - (twoUp - twoDown)) / (12 * step), norm }
}

for (const [title, config] of Object.entries(models)) {
  for (const [lossName, { loss, extra, logRatio = (i: number) => 0.2 - 0.1 * (i % 5) }] of Object.entries(
    losses,
  )) {
    // The loss is the same in all of them.
    if (extra && title !== 'llama, tied') continue
    test(`${title}: the gradient of the ${lossName} loss by every parameter agrees with finite differences within 1 %`, async (t) => {
      const policy = await initializeNativePolicy(
        { ...config, hiddenSize: 30, intermediateSize: 47, numLayers: 2, vocabSize: 61 },
        { standardDeviation: 0.3, seed: 11 },
      )
      const learner = await loadNative().createLearner(policy, learnerOptions)
      t.teardown(() => {
        learner.dispose()
        policy.dispose()
      })
      // Biases and norms of 0 and 1 would hide mistakes.
      for (const { name, shape } of policy.parameters()) {
        if (shape.length > 1) continue
        const weights = await policy.readParameter(name)
        await policy.writeParameter(
          name,
          weights.map((value, i) => value + 0.3 * Math.sin(1 + 2 * i)),
        )
      }
      const { logProbs } = await policy.score(batch.tokens, batch.offsets, loss.temperature, null)
      const near = {
        ...batch,
        ...extra,
        oldLogProbs: logProbs.map((value, i) => value - logRatio(i)),
        referenceLogProbs: logProbs.map((value, i) => value - 0.5 + 0.3 * (i % 4)),
      }
      const lossAt = async () => (await learner.accumulate(near, loss, null)).loss
      await learner.zeroGradients()
      await lossAt()
      const gradients = new Map<string, Float32Array>()
      for (const { name } of policy.parameters()) gradients.set(name, await learner.readGradient(name))
      for (const [name, gradient] of gradients) {
        const { expected, norm } = await differences(policy, name, gradient, lossAt)
        t.true(norm > 1e-4, `${name}: ${norm}`)
        t.true(Math.abs(expected / norm - 1) < 1e-2, `${name}: ${norm} against ${expected}`)
      }
    })
  }
}

test('clipped tokens have no gradient, and dual clip bounds those of bad tokens', async (t) => {
  const policy = await initializeNativePolicy({}, { standardDeviation: 0.3 })
  const learner = await loadNative().createLearner(policy, learnerOptions)
  t.teardown(() => {
    learner.dispose()
    policy.dispose()
  })
  const scored = await policy.score(batch.tokens, batch.offsets, 1, null)
  const norm = async (advantage: number, logRatio: number, dualClip: number) => {
    const oldLogProbs = scored.logProbs.map((value) => value - logRatio)
    const advantages = values(() => advantage)
    const options = { ...policyGradient, temperature: 1, epsilon: 0.2, epsilonHigh: 0.28, beta: 0, dualClip }
    await learner.accumulate({ ...batch, advantages, oldLogProbs }, options, null)
    return (await learner.step({ learningRate: 0, maxGradNorm: 1 })).gradNorm
  }
  t.is(await norm(1, Math.log(1.5), 0), 0)
  t.is(await norm(-1, Math.log(0.5), 0), 0)
  t.true((await norm(-1, Math.log(1.5), 0)) > 0)
  t.true((await norm(1, Math.log(0.5), 0)) > 0)
  t.true((await norm(-1, Math.log(4), 0)) > 0)
  t.is(await norm(-1, Math.log(4), 3), 0)
})
