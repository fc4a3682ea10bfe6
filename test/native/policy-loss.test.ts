import test from 'ava'
import { kernels, type PolicyLossArguments } from '../../lib/kernels.ts'
import { devices } from './devices.ts'
import * as reference from './reference.ts'

const { bytes, close, doubles, elements, normal, pick, spread } = reference

/** The loss in doubles: what it adds up to, with its parts, as a function of hidden states and weight. */
function plain(args: PolicyLossArguments, hidden: Float64Array, weight: Float64Array) {
  const { targets, inputs, temperature = 1, epsilon = 0.2, epsilonHigh = 0.2, dualClip = 0, beta = 0 } = args
  const logits = reference.matmul(hidden, weight, inputs)
  const vocabulary = weight.length / inputs
  const total = {
    loss: 0,
    policyLoss: 0,
    klSum: 0,
    entropySum: 0,
    ratioSum: 0,
    ratioMax: 0,
    mismatch: 0,
    clipLow: 0,
    clipHigh: 0,
    rows: 0,
  }
  const logProbs = new Float64Array(targets.length)
  const entropies = new Float64Array(targets.length)
  targets.forEach((target, row) => {
    const w = args.weights?.[row] ?? 1
    if (w === 0) return
    const softmax = reference.logSoftmax(
      logits.subarray(row * vocabulary, (row + 1) * vocabulary),
      temperature,
    )
    const lp = softmax.logProbs[target]!
    logProbs[row] = lp
    entropies[row] = softmax.entropy
    const old = args.oldLogProbs?.[row] ?? fixedOld?.[row] ?? lp
    // The derivative of a given ratio by lp is the ratio: as if it moved with lp from where lp was.
    const moved = fixed === undefined ? 0 : lp - fixed[row]!
    const logRatio = args.logRatios === undefined ? lp - old : args.logRatios[row]! + moved
    const ratio = args.type === 'sft' ? 1 : Math.exp(logRatio)
    const advantage = args.advantages?.[row] ?? 0
    let policy = Math.max(
      -advantage * ratio,
      -advantage * Math.min(Math.max(ratio, 1 - epsilon), 1 + epsilonHigh),
    )
    if (dualClip > 0 && advantage < 0) policy = Math.min(policy, -advantage * dualClip)
    if (args.type === 'sft') policy = -lp
    policy += (args.driftWeights?.[row] ?? 0) * Math.abs(lp - old)
    const difference = (args.referenceLogProbs?.[row] ?? lp) - lp
    const estimate = {
      k1: -difference,
      k2: difference ** 2 / 2,
      k3: Math.exp(difference) - difference - 1,
    }[args.klEstimator ?? 'k3']
    const kl = args.type === 'sft' || beta === 0 ? 0 : estimate
    total.policyLoss += w * policy
    total.loss += w * (policy + beta * kl)
    total.klSum += kl
    total.entropySum += softmax.entropy
    total.ratioSum += ratio
    total.ratioMax = Math.max(total.ratioMax, ratio)
    total.mismatch = Math.max(total.mismatch, Math.abs(lp - (args.oldLogProbs?.[row] ?? lp)))
    total.clipLow += Number(advantage < 0 && ratio < 1 - epsilon)
    total.clipHigh += Number(advantage > 0 && ratio > 1 + epsilonHigh)
    total.rows += 1
  })
  return { statistics: total, logProbs, entropies }
}
/** Log-probs of the unmoved inputs: without oldLogProbs the ratio is 1, yet its derivative is not 0. */
let fixedOld: Float64Array | undefined
/** The same, for the ratios that are given. */
let fixed: Float64Array | undefined

function lossDifferences(args: PolicyLossArguments, which: 'hidden' | 'weight', indices: number[]) {
  const hidden = doubles(args.hidden)
  const weight = doubles(elements(args.weight, args.hidden instanceof Uint16Array ? 'bf16' : 'f32'))
  fixed = plain(args, hidden, weight).logProbs
  fixedOld = args.oldLogProbs ? undefined : fixed
  const loss = (x: Float64Array) =>
    (which === 'hidden' ? plain(args, x, weight) : plain(args, hidden, x)).statistics.loss
  const result = reference.differences(loss, which === 'hidden' ? hidden : weight, indices)
  fixedOld = undefined
  fixed = undefined
  return result
}

function example(
  rows: number,
  vocabulary: number,
  inputs: number,
  dtype: reference.DTypeName,
): PolicyLossArguments {
  const targets = Int32Array.from({ length: rows }, (_, i) => (i * 7919) % vocabulary)
  const hidden = elements(normal(1, rows * inputs), dtype)
  const weight = normal(2, vocabulary * inputs, 0.3)
  const own = plain(
    { type: 'sft', hidden, weight, inputs, targets },
    doubles(hidden),
    doubles(elements(weight, dtype)),
  )
  const near = (seed: number) =>
    Float32Array.from(normal(seed, rows, 0.3), (value, i) => value + own.logProbs[i]!)
  return {
    type: 'policy-gradient',
    hidden,
    weight,
    inputs,
    targets,
    weights: Float32Array.from(normal(3, rows), (value, i) => (i % 4 === 1 ? 0 : Math.abs(value))),
    advantages: normal(4, rows),
    oldLogProbs: near(5),
    referenceLogProbs: near(6),
    beta: 0.04,
  }
}

const variants: [title: string, change: Partial<PolicyLossArguments>][] = [
  ['clipped policy gradient with k3', {}],
  [
    'unequal clips, a temperature and a dual clip',
    { epsilon: 0.1, epsilonHigh: 0.28, temperature: 0.7, dualClip: 1.2 },
  ],
  ['no old log-probs', { oldLogProbs: undefined, beta: 0, referenceLogProbs: undefined }],
  ['k1 in the loss', { klEstimator: 'k1' }],
  ['k2 in the loss', { klEstimator: 'k2' }],
  ['ratios that are given, not the tokens’ own', { logRatios: normal(7, 64, 0.4) }],
  ['some tokens held near where they were', { driftWeights: normal(8, 64).map((x) => (x > 0.5 ? 1.5 : 0)) }],
  [
    'supervised',
    { type: 'sft', advantages: undefined, oldLogProbs: undefined, referenceLogProbs: undefined, beta: 0 },
  ],
]
const sizes = [
  [1, 3, 1],
  [3, 31, 47],
  [31, 47, 3],
  [47, 123, 31],
  [40, 1000, 16],
] as const

for (const { name, kernels, test } of devices) {
  for (const dtype of reference.dtypes) {
    for (const [rows, vocabulary, inputs] of sizes) {
      for (const [title, change] of variants) {
        test(`policyLoss ${dtype} [${rows}, ${vocabulary}, ${inputs}], ${title}: equals the reference and its differences`, async (t) => {
          const args = { ...example(rows, vocabulary, inputs, dtype), ...change }
          for (const name of ['logRatios', 'driftWeights'] as const) args[name] = args[name]?.slice(0, rows)
          const result = await kernels.policyLoss(args)
          const expected = plain(args, doubles(args.hidden), doubles(elements(args.weight, dtype)))
          const bound = { absolute: 1e-5, relative: 1e-5 }
          close(t, 'logProbs', result.logProbs, expected.logProbs, bound)
          close(t, 'entropies', result.entropies, expected.entropies, bound)
          for (const [key, value] of Object.entries(expected.statistics)) {
            const got = result.statistics[key as keyof typeof result.statistics]
            t.true(
              Math.abs(got - value) <= 1e-5 * rows + 1e-5 * Math.abs(value),
              `${key}: ${value} but got ${got}`,
            )
          }
          const slope =
            dtype === 'f32' ? { absolute: 2e-5, relative: 2e-4 } : { absolute: 3e-3, relative: 1e-2 }
          const hiddenAt = spread(args.hidden.length, 12)
          close(
            t,
            'dhidden',
            pick(result.dhidden!, hiddenAt),
            lossDifferences(args, 'hidden', hiddenAt),
            slope,
          )
          const weightAt = spread(args.weight.length, 12)
          close(
            t,
            'dweight',
            pick(result.dweight!, weightAt),
            lossDifferences(args, 'weight', weightAt),
            slope,
          )
        })
      }
    }

    test(`policyLoss ${dtype}: rows of weight 0 have no part, and all of them give zeros`, async (t) => {
      const args = example(47, 123, 31, dtype)
      const without = await kernels.policyLoss({ ...args, weights: new Float32Array(47) })
      for (const values of [without.logProbs, without.entropies, without.dhidden!, without.dweight!]) {
        t.true(values.every((value) => value === 0))
      }
      t.is(without.statistics.rows, 0)
      const poisoned = {
        ...args,
        advantages: args.advantages!.map((value, i) => (args.weights![i] === 0 ? Number.NaN : value)),
      }
      t.deepEqual(await kernels.policyLoss(poisoned), await kernels.policyLoss(args))
    })

    test(`policyLoss ${dtype} on no rows is nothing`, async (t) => {
      const none = new Float32Array(0)
      const { statistics, dweight } = await kernels.policyLoss({
        type: 'sft',
        hidden: elements(none, dtype),
        weight: normal(1, 15),
        inputs: 5,
        targets: new Int32Array(0),
      })
      t.is(statistics.rows, 0)
      t.true(dweight!.every((value) => value === 0))
    })

    test(`${dtype}: policyLoss, logProbs and sample give the same bits, in any company and on any number of threads`, async (t) => {
      const [rows, vocabulary, inputs, temperature] = [90, name === 'cpu' ? 5003 : 503, 64, 0.9]
      const { hidden, weight } = example(rows, vocabulary, inputs, dtype)
      const { y } = await kernels.matmul({ x: hidden, weight, inputs })
      const drawn = await kernels.sample({
        logits: y as Float32Array,
        vocabulary,
        temperature,
        positions: Int32Array.from({ length: rows }, (_, i) => i),
      })
      for (const threads of [1, 2, 3]) {
        const head = { hidden, weight, inputs, targets: drawn.tokens, temperature }
        const scored = await kernels.logProbs(head, { threads })
        t.deepEqual(bytes(scored.logProbs), bytes(drawn.logProbs))
        t.deepEqual(bytes(scored.entropies), bytes(drawn.entropies))
        const weights = Float32Array.from({ length: rows }, (_, i) => Number(i % 3 !== 0))
        const trained = await kernels.policyLoss(
          { ...head, type: 'sft', weights, backward: threads > 1 },
          { threads },
        )
        t.deepEqual(
          trained.logProbs,
          scored.logProbs.map((value, i) => (weights[i] === 0 ? 0 : value)),
        )
        t.deepEqual(
          trained.entropies,
          scored.entropies.map((value, i) => (weights[i] === 0 ? 0 : value)),
        )
        const one = await kernels.logProbs(
          { ...head, hidden: hidden.slice(40 * inputs, 41 * inputs), targets: drawn.tokens.slice(40, 41) },
          { threads },
        )
        t.is(one.logProbs[0], drawn.logProbs[40])
      }
    })
  }

  test('policyLoss and logProbs: rows of later chunks are those of the definition', async (t) => {
    const [rows, vocabulary, inputs] = [1030, 7, 5]
    const args = { ...example(rows, vocabulary, inputs, 'f32'), weights: undefined }
    const expected = plain(args, doubles(args.hidden), doubles(args.weight))
    const bound = { absolute: 1e-5, relative: 1e-5 }
    const result = await kernels.policyLoss(args)
    close(t, 'logProbs', result.logProbs, expected.logProbs, bound)
    const at = [0, 1023, 1024, 1029].map((row) => row * inputs)
    const slope = { absolute: 2e-5, relative: 2e-4 }
    close(t, 'dhidden', pick(result.dhidden!, at), lossDifferences(args, 'hidden', at), slope)
    const weightAt = spread(args.weight.length, 12)
    const byWeight = lossDifferences(args, 'weight', weightAt)
    close(t, 'dweight', pick(result.dweight!, weightAt), byWeight, { absolute: 2e-3, relative: 2e-4 })
    close(t, 'logProbs', (await kernels.logProbs(args)).logProbs, expected.logProbs, bound)
  })

  test('policyLoss: old log-probs of the same pass give a mismatch of exactly 0 and a ratio of exactly 1', async (t) => {
    const args = example(47, 123, 31, 'f32')
    const { logProbs } = await kernels.policyLoss(args)
    const { statistics } = await kernels.policyLoss({ ...args, oldLogProbs: logProbs })
    t.is(statistics.mismatch, 0)
    t.is(statistics.ratioSum, statistics.rows)
  })

  test('policyLoss: a NaN in a hidden state reaches the loss', async (t) => {
    const args = example(3, 31, 47, 'f32')
    args.hidden[0] = Number.NaN
    t.true(Number.isNaN((await kernels.policyLoss(args)).statistics.loss))
  })
}

test('policyLoss: a vocabulary of 49,152, several chunks of rows', async (t) => {
  const [rows, vocabulary, inputs] = [700, 49152, 4]
  const hidden = normal(1, rows * inputs)
  const weight = normal(2, vocabulary * inputs)
  const targets = Int32Array.from({ length: rows }, (_, i) => (i * 31337) % vocabulary)
  const { logProbs, entropies, dhidden } = await kernels.policyLoss({
    type: 'sft',
    hidden,
    weight,
    inputs,
    targets,
  })
  for (const row of [0, 350, 699]) {
    const logits = reference.matmul(
      doubles(hidden.slice(row * inputs, (row + 1) * inputs)),
      doubles(weight),
      inputs,
    )
    const expected = reference.logSoftmax(logits, 1)
    t.true(Math.abs(logProbs[row]! - expected.logProbs[targets[row]!]!) < 2e-5)
    t.true(Math.abs(entropies[row]! - expected.entropy) < 2e-5)
    for (let j = 0; j < inputs; j++) {
      let slope = -weight[targets[row]! * inputs + j]!
      for (let v = 0; v < vocabulary; v++) slope += Math.exp(expected.logProbs[v]!) * weight[v * inputs + j]!
      t.true(Math.abs(dhidden![row * inputs + j]! - slope) < 2e-5)
    }
  }
})
