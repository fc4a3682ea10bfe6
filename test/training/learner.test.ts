import test, { type ExecutionContext } from 'ava'
import type { NativePolicy } from '../../lib/native.ts'
import { Learner, type LearnerBatch, type LossOptions } from '../../lib/training/learner.ts'
import { initializeNativePolicy, policyAround, smallConfig } from '../helpers/fixture-policy.ts'
import { concat, flatten } from '../helpers/reference.ts'

const lengths = [12, 40, 1, 25]
const tokens = lengths.map((length, s) =>
  Int32Array.from({ length }, (_, t) => (s * 29 + t * 13) % smallConfig.vocabSize),
)
const perToken = (make: (s: number, t: number) => number) =>
  tokens.map(({ length }, s) => Float32Array.from({ length: length - 1 }, (_, t) => make(s, t)))
const lossMask = perToken((s, t) => Number(t > 3 && (s + t) % 4 !== 0)).map((mask) => Uint8Array.from(mask))
const lossWeights = perToken((s, t) => 0.5 + 0.25 * ((s + t) % 4))
const advantages = Float32Array.of(1.1, -0.7, 0.4, 0.9)

async function open(t: ExecutionContext) {
  const native = await initializeNativePolicy({}, { standardDeviation: 0.2 })
  const policy = policyAround(native)
  const learner = new Learner(policy, { learningRate: 1e-3 })
  t.teardown(() => {
    learner.dispose()
    return native.dispose()
  })
  return { native, policy, learner }
}

async function score(native: NativePolicy, temperature: number) {
  const flat = flatten(tokens)
  const scores = await native.score(flat.tokens, flat.offsets, temperature, null)
  const cut = (values: Float32Array) =>
    tokens.map(({ length }, s) => {
      const start = flat.offsets[s]! - s
      return values.slice(start, start + length - 1)
    })
  return { logProbs: cut(scores.logProbs), entropies: cut(scores.entropies) }
}

/** exp(mean of log p - log p_old), tokens weighted as in the loss. */
function meanRatio(batch: LearnerBatch, s: number, scores: { logProbs: Float32Array[] }): number {
  let sum = 0
  let weights = 0
  for (const [i, isActive] of batch.lossMask[s]!.entries()) {
    const weight = isActive ? (batch.lossWeights?.[s]?.[i] ?? 1) : 0
    const logProb = scores.logProbs[s]![i]!
    sum += weight * (logProb - (batch.oldLogProbs?.[s]?.[i] ?? logProb))
    weights += weight
  }
  return Math.exp(sum / weights)
}

/** What api.md and the docstring of LossOptions say, in double precision. */
function expectedStatistics(
  batch: LearnerBatch,
  loss: LossOptions,
  scores: { logProbs: Float32Array[]; entropies: Float32Array[] },
) {
  const { type, epsilon = 0.2, epsilonHigh = epsilon, beta = 0, dualClip, klEstimator = 'k3' } = loss
  const total = { loss: 0, policyLoss: 0, kl: 0, entropy: 0, clipLow: 0, clipHigh: 0, ratio: 0, weights: 0 }
  let active = 0
  let mismatch = 0
  let ratioMax = 0
  for (const [s, mask] of batch.lossMask.entries()) {
    const sequenceRatio = meanRatio(batch, s, scores)
    const own = { loss: 0, policyLoss: 0, weights: 0 }
    for (const [i, isActive] of mask.entries()) {
      if (!isActive) continue
      active++
      const weight = batch.lossWeights?.[s]?.[i] ?? 1
      const logProb = scores.logProbs[s]![i]!
      const old = type === 'sft' ? logProb : (batch.oldLogProbs?.[s]?.[i] ?? logProb)
      const ratio = loss.importanceSamplingLevel === 'sequence' ? sequenceRatio : Math.exp(logProb - old)
      const given = batch.advantages ?? advantages
      const advantage = Array.isArray(given) ? given[s]![i]! : given[s]!
      const clipped = Math.min(Math.max(ratio, 1 - epsilon), 1 + epsilonHigh)
      let policyLoss = Math.max(-advantage * ratio, -advantage * clipped)
      if (dualClip && advantage < 0) policyLoss = Math.min(policyLoss, -advantage * dualClip)
      policyLoss += (batch.driftWeights?.[s]?.[i] ?? 0) * Math.abs(logProb - old)
      if (type === 'sft') policyLoss = -logProb
      const d = beta === 0 ? 0 : batch.referenceLogProbs![s]![i]! - logProb
      const kl = { k1: -d, k2: (d * d) / 2, k3: Math.exp(d) - d - 1 }[klEstimator]
      own.loss += weight * (policyLoss + beta * kl)
      own.policyLoss += weight * policyLoss
      own.weights += weight
      total.kl += kl
      total.entropy += scores.entropies[s]![i]!
      total.ratio += ratio
      total.clipLow += Number(type !== 'sft' && advantage < 0 && ratio < 1 - epsilon)
      total.clipHigh += Number(type !== 'sft' && advantage > 0 && ratio > 1 + epsilonHigh)
      ratioMax = Math.max(ratioMax, ratio)
      mismatch = Math.max(mismatch, Math.abs(logProb - old))
    }
    const divisor = type === 'grpo' && own.weights > 0 ? own.weights : 1
    total.loss += own.loss / divisor
    total.policyLoss += own.policyLoss / divisor
    total.weights += own.weights
  }
  const sequences = batch.tokens.length
  const own = {
    sft: total.weights,
    bnpo: total.weights,
    dapo: total.weights,
    value: total.weights,
    grpo: sequences,
  }
  const normalizer =
    loss.normalizer ?? (type === 'dr_grpo' ? sequences * loss.maxCompletionLength! : own[type])
  return {
    loss: total.loss / normalizer,
    policyLoss: total.policyLoss / normalizer,
    kl: total.kl / active,
    entropy: total.entropy / active,
    clipLow: total.clipLow / active,
    clipHigh: total.clipHigh / active,
    ratioMean: total.ratio / active,
    ratioMax,
    mismatch,
    valueLoss: 0,
    value: 0,
    valueClip: 0,
    tokens: active,
    sequences,
    recomputed: 0,
  }
}

const losses: Record<string, LossOptions> = {
  sft: { type: 'sft' },
  'sft at another temperature': { type: 'sft', temperature: 0.6 },
  grpo: { type: 'grpo' },
  'grpo with KL': { type: 'grpo', beta: 0.1 },
  'grpo with k1': { type: 'grpo', beta: 0.1, klEstimator: 'k1' },
  'grpo with k2': { type: 'grpo', beta: 0.1, klEstimator: 'k2' },
  bnpo: { type: 'bnpo', beta: 0.02, epsilon: 0.1 },
  'dapo with clip-higher and dual clip': { type: 'dapo', epsilonHigh: 0.28, dualClip: 1.5 },
  gspo: { type: 'grpo', importanceSamplingLevel: 'sequence', epsilon: 0.02, epsilonHigh: 0.04 },
  'gspo with KL over a mean of tokens': { type: 'dapo', importanceSamplingLevel: 'sequence', beta: 0.1 },
  'kl-cov': { type: 'dapo', epsilon: 1, epsilonHigh: 1e30 },
  dr_grpo: { type: 'dr_grpo', maxCompletionLength: 64 },
  'grpo with the normalizer of a whole step': { type: 'grpo', normalizer: 32 },
  'dapo with the normalizer of a whole step': { type: 'dapo', normalizer: 1000, temperature: 1.3 },
}

for (const [name, loss] of Object.entries(losses)) {
  test(`${name}: loss and statistics are those of the formulas`, async (t) => {
    const { native, learner } = await open(t)
    const scores = await score(native, loss.temperature ?? 1)
    const near = (offset: (s: number, i: number) => number) =>
      scores.logProbs.map((values, s) => values.map((value, i) => value + offset(s, i)))
    const whole: LearnerBatch = {
      tokens,
      lossMask,
      lossWeights,
      advantages,
      oldLogProbs: near((s, i) => 0.9 * Math.sin(3 * s + i)),
      referenceLogProbs: near((s, i) => 0.7 * Math.cos(s + 2 * i)),
    }
    if (name === 'kl-cov') whole.driftWeights = perToken((s, i) => ((s + i) % 5 === 0 ? 0.7 : 0))
    const withoutWeights = { tokens, lossMask, advantages, referenceLogProbs: whole.referenceLogProbs }
    const spread = { ...whole, advantages: perToken((s, i) => Math.sin(s + 5 * i)) }
    for (const batch of [whole, withoutWeights, spread]) {
      const statistics = await learner.accumulate(batch, loss)
      const expected = expectedStatistics(batch, loss, scores)
      t.deepEqual(Object.keys(statistics).sort(), Object.keys(expected).sort())
      for (const key of Object.keys(expected) as (keyof typeof expected)[]) {
        const difference = Math.abs(statistics[key] - expected[key])
        t.true(
          difference <= 1e-5 * Math.max(1, Math.abs(expected[key])),
          `${key}: ${statistics[key]}, ${expected[key]}`,
        )
      }
    }
  })
}

test('fresh log-probs of the same policy have no mismatch and a ratio of exactly 1', async (t) => {
  const { native, learner } = await open(t)
  const { logProbs } = await score(native, 0.8)
  const batch = { tokens, lossMask, advantages, oldLogProbs: logProbs }
  const statistics = await learner.accumulate(batch, { type: 'dapo', temperature: 0.8 })
  t.is(statistics.mismatch, 0)
  t.is(statistics.ratioMean, 1)
  t.is(statistics.ratioMax, 1)
  const name = 'model.layers.1.mlp.down_proj.weight'
  const weights = await native.readParameter(name)
  weights[7]! += 1e-3
  await native.writeParameter(name, weights)
  t.true((await learner.accumulate(batch, { type: 'dapo', temperature: 0.8 })).mismatch > 0)
})

test('the ratio of a sequence is clipped as a whole: its tokens have a gradient together, or none', async (t) => {
  const { native, learner } = await open(t)
  const { logProbs } = await score(native, 1)
  // Tokens far from 1 on both sides, the mean of each sequence at 1 but for the last one's.
  const mean = (s: number) => (s === 3 ? 0.01 : 0)
  const active = lossMask.map((mask) => mask.reduce((sum, value) => sum + value, 0))
  let seen = 0
  const oldLogProbs = logProbs.map((values, s) => {
    seen = 0
    return values.map((value, i) => {
      if (lossMask[s]![i] === 0) return value
      seen += 1
      const even = active[s]! % 2 === 0 || seen < active[s]!
      return value - mean(s) - (even ? (seen % 2 === 0 ? 0.5 : -0.5) : 0)
    })
  })
  const batch = { tokens, lossMask, advantages: Float32Array.of(1, 1, 1, 1), oldLogProbs }
  const loss = { type: 'grpo', epsilon: 3e-4, epsilonHigh: 4e-4 } as const
  const level = { importanceSamplingLevel: 'sequence' } as const
  const whole = await learner.accumulate(batch, { ...loss, ...level })
  t.is(Math.round(whole.clipHigh * whole.tokens), active[3]!)
  t.is(whole.clipLow, 0)
  const byToken = await learner.accumulate(batch, loss)
  t.true(byToken.clipHigh > whole.clipHigh && byToken.ratioMax > 1.6)
  t.true(whole.ratioMax < 1.02)
  t.true(whole.mismatch > 0.49, 'the mismatch is still that of tokens')
})

test('a value head is trained beside the policy or alone, and values come per token', async (t) => {
  const { native, policy } = await open(t)
  const learner = new Learner(policy, { learningRate: 1e-2, weightDecay: 0, valueHead: true })
  t.teardown(() => learner.dispose())
  const zero = await learner.values(tokens)
  t.deepEqual(
    zero.map((values) => values.length),
    lengths.map((length) => length - 1),
  )
  t.true(zero.flatMap((values) => [...values]).every((value) => value === 0))
  const returns = perToken((s) => s)
  const batch = { tokens, lossMask, advantages, returns, oldValues: zero }
  const both = await learner.accumulate(batch, { type: 'dapo', valueCoefficient: 0.5, valueClip: 10 })
  t.true(Math.abs(both.loss - both.policyLoss - both.valueLoss) < 1e-6)
  const counts = lossMask.map((mask) => mask.reduce((sum, value) => sum + value, 0))
  const all = counts.reduce((sum, count) => sum + count, 0)
  const expected = (0.5 * counts.reduce((sum, count, s) => sum + (count * s * s) / 2, 0)) / all
  t.true(Math.abs(both.valueLoss - expected) < 1e-5)
  t.true((await learner.gradients()).get('value_head.weight')!.some((value) => value !== 0))
  await learner.zeroGradients()
  const name = native.parameters()[0]!.name
  const before = await native.readParameter(name)
  await learner.accumulate(batch, { type: 'value', detachValue: true })
  await learner.step({ valueHeadOnly: true })
  t.deepEqual(await native.readParameter(name), before)
  t.true((await learner.values(tokens))[1]!.some((value) => value !== 0))
  await t.throwsAsync(learner.values([[1, 2]] as never), { code: 'ERR_INVALID_ARG' })
})

test('gradients come by Hugging Face name; step clips, clears and returns the norm and the rate', async (t) => {
  const { native, learner } = await open(t)
  await learner.accumulate({ tokens, lossMask }, { type: 'sft' })
  const gradients = await learner.gradients()
  t.deepEqual(
    [...gradients.keys()],
    native.parameters().map(({ name }) => name),
  )
  const norm = Math.hypot(...concat([...gradients.values()]))
  const { gradNorm, learningRate } = await learner.step()
  t.true(Math.abs(gradNorm / norm - 1) < 1e-5)
  t.is(learningRate, 1e-3)
  for (const gradient of (await learner.gradients()).values()) t.true(gradient.every((value) => value === 0))
  learner.learningRate = 2e-3
  t.is((await learner.step()).learningRate, 2e-3)
  t.is((await learner.step({ learningRate: 5e-4 })).learningRate, 5e-4)
})

test('a few steps of sft make the trained tokens likelier', async (t) => {
  const { learner } = await open(t)
  const losses = []
  for (let i = 0; i < 8; i++) {
    losses.push((await learner.accumulate({ tokens, lossMask }, { type: 'sft' })).loss)
    await learner.step({ learningRate: 1e-2 })
  }
  t.true(losses.at(-1)! < 0.7 * losses[0]!)
})

const good: LearnerBatch = { tokens, lossMask, advantages }
const one = (arrays: Float32Array[], change: (array: Float32Array) => Float32Array) =>
  arrays.map((array, s) => (s === 1 ? change(array) : array))
const badBatches: Record<string, [batch: unknown, loss: unknown]> = {
  'no batch': [undefined, { type: 'grpo' }],
  'no tokens': [{ lossMask, advantages }, { type: 'grpo' }],
  'tokens as plain arrays': [{ ...good, tokens: tokens.map((ids) => [...ids]) }, { type: 'grpo' }],
  'an empty sequence': [{ ...good, tokens: [...tokens.slice(0, 3), new Int32Array()] }, { type: 'grpo' }],
  'a token beyond the vocabulary': [
    { ...good, tokens: [...tokens.slice(0, 3), tokens[3]!.with(4, smallConfig.vocabSize)] },
    { type: 'grpo' },
  ],
  'a negative token': [
    { ...good, tokens: [...tokens.slice(0, 3), tokens[3]!.with(4, -1)] },
    { type: 'grpo' },
  ],
  'a sequence beyond the context': [
    {
      tokens: [new Int32Array(513)],
      lossMask: [new Uint8Array(512).fill(1)],
      advantages: Float32Array.of(1),
    },
    { type: 'grpo' },
  ],
  'a mask of the wrong length': [
    { ...good, lossMask: tokens.map((ids) => new Uint8Array(ids.length)) },
    { type: 'grpo' },
  ],
  'a mask of floats': [{ ...good, lossMask: lossWeights }, { type: 'grpo' }],
  'a mask too few': [{ ...good, lossMask: lossMask.slice(1) }, { type: 'grpo' }],
  'negative weights': [{ ...good, lossWeights: one(lossWeights, (w) => w.with(5, -1)) }, { type: 'grpo' }],
  'weights of NaN': [
    { ...good, lossWeights: one(lossWeights, (w) => w.with(5, Number.NaN)) },
    { type: 'grpo' },
  ],
  'no advantages': [{ tokens, lossMask }, { type: 'grpo' }],
  'advantages as a plain array': [{ ...good, advantages: [1, 2, 3, 4] }, { type: 'grpo' }],
  'advantages too few': [{ ...good, advantages: advantages.slice(1) }, { type: 'grpo' }],
  'advantages of NaN': [{ ...good, advantages: advantages.with(2, Number.NaN) }, { type: 'grpo' }],
  'old log-probs of NaN': [
    { ...good, oldLogProbs: one(lossWeights, (w) => w.map(() => Number.NaN)) },
    { type: 'grpo' },
  ],
  'old log-probs of doubles': [
    { ...good, oldLogProbs: lossWeights.map((w) => Float64Array.from(w)) },
    { type: 'grpo' },
  ],
  'beta without a reference': [good, { type: 'grpo', beta: 0.1 }],
  'beta with sft': [
    { ...good, referenceLogProbs: lossWeights },
    { type: 'sft', beta: 0.1 },
  ],
  'no loss': [good, undefined],
  'another type of loss': [good, { type: 'ppo' }],
  'dr_grpo without its length': [good, { type: 'dr_grpo' }],
  'an unknown option': [good, { type: 'grpo', espilon: 0.1 }],
  'an unknown field of the batch': [{ ...good, advantage: advantages }, { type: 'grpo' }],
  'another level': [good, { type: 'grpo', importanceSamplingLevel: 'turn' }],
  'values without returns': [good, { type: 'value' }],
  'returns for sft': [{ ...good, returns: lossWeights }, { type: 'sft' }],
  'a clip of values from nowhere': [
    { ...good, returns: lossWeights },
    { type: 'value', valueClip: 0.2 },
  ],
  'returns without a value head': [{ ...good, returns: lossWeights }, { type: 'value' }],
  'returns of NaN': [{ ...good, returns: lossWeights.map((w) => w.map(() => Number.NaN)) }, { type: 'grpo' }],
  'drift from nowhere': [{ ...good, driftWeights: lossWeights }, { type: 'grpo' }],
  'another estimate of KL': [good, { type: 'grpo', klEstimator: 'k4' }],
  'a temperature of 0': [good, { type: 'grpo', temperature: 0 }],
  'a temperature of NaN': [good, { type: 'grpo', temperature: Number.NaN }],
  'a negative epsilon': [good, { type: 'grpo', epsilon: -0.1 }],
  'a dual clip below 1': [good, { type: 'grpo', dualClip: 0.5 }],
  'a normalizer of 0': [good, { type: 'grpo', normalizer: 0 }],
  'a beta that is a string': [good, { type: 'grpo', beta: '0' }],
}

test('a batch or loss that does not fit is ERR_INVALID_ARG, and the learner goes on working', async (t) => {
  const { learner } = await open(t)
  for (const [name, [batch, loss]] of Object.entries(badBatches)) {
    const error = await t.throwsAsync(
      learner.accumulate(batch as LearnerBatch, loss as LossOptions),
      undefined,
      name,
    )
    t.is((error as { code?: string }).code, 'ERR_INVALID_ARG', `${name}: ${error?.message}`)
  }
  t.true((await learner.accumulate(good, { type: 'grpo' })).tokens > 0)
})

test('options that do not fit are ERR_INVALID_ARG', async (t) => {
  const { policy } = await open(t)
  const bad: unknown[] = [
    undefined,
    {},
    { learningRate: -1 },
    { learningRate: Number.NaN },
    { learningRate: '1e-3' },
    { learningRate: 1, betas: [0.9] },
    { learningRate: 1, betas: [0.9, 1] },
    { learningRate: 1, epsilon: 0 },
    { learningRate: 1, weightDecay: -0.1 },
    { learningRate: 1, maxGradNorm: 0 },
    { learningRate: 1, activationBudget: -1 },
    { learningRate: 1, momentum: 0.9 },
  ]
  for (const options of bad) {
    t.throws(
      () => new Learner(policy, options as never),
      { code: 'ERR_INVALID_ARG' },
      JSON.stringify(options),
    )
  }
  t.throws(() => new Learner({} as never, { learningRate: 1 }), { code: 'ERR_INVALID_ARG' })
  t.notThrows(() => new Learner(policy, { learningRate: 0, maxGradNorm: Infinity }))
})

test('an abort rejects with the reason of the signal', async (t) => {
  const { learner } = await open(t)
  const controller = new AbortController()
  const reason = new Error('enough')
  const stopped = learner.accumulate(good, { type: 'grpo' }, { signal: controller.signal })
  controller.abort(reason)
  t.is(await t.throwsAsync(stopped), reason)
  t.true((await learner.accumulate(good, { type: 'grpo' })).tokens > 0)
})

test('a learner that was disposed of, or whose policy was, is ERR_DISPOSED', async (t) => {
  const { native, policy, learner } = await open(t)
  await learner.accumulate(good, { type: 'grpo' })
  const other = new Learner(policy, { learningRate: 1 })
  learner.dispose()
  learner.dispose()
  await t.throwsAsync(learner.accumulate(good, { type: 'grpo' }), { code: 'ERR_DISPOSED' })
  await t.throwsAsync(learner.step(), { code: 'ERR_DISPOSED' })
  await other.accumulate(good, { type: 'grpo' })
  await native.dispose()
  await t.throwsAsync(other.accumulate(good, { type: 'grpo' }), { code: 'ERR_DISPOSED' })
  other.dispose()
})

test('disposing of the policy in the middle of the work rejects what runs and what waits with ERR_DISPOSED', async (t) => {
  const { native, learner } = await open(t)
  const long = Array.from({ length: 16 }, () => new Int32Array(500).map((_, i) => i % 100))
  const batch = { tokens: long, lossMask: long.map(() => new Uint8Array(499).fill(1)) }
  const runs = Array.from({ length: 4 }, () => learner.accumulate(batch, { type: 'sft' }))
  await learner.accumulate(good, { type: 'grpo' }).catch(() => {})
  const more = Array.from({ length: 4 }, () => learner.accumulate(batch, { type: 'sft' }))
  const disposed = native.dispose()
  for (const run of more) await t.throwsAsync(run, { code: 'ERR_DISPOSED' })
  await Promise.all([disposed, ...runs])
})
