import test, { type ExecutionContext } from 'ava'
import { kernels, type SampleArguments } from '../../lib/kernels.ts'
import { loadEmulated } from '../../lib/native.ts'
import { Random } from '../../lib/random.ts'
import { type Device, devices, emulated, hasEmulated } from './devices.ts'
import { bytes, close, logSoftmax, normal } from './reference.ts'

type Settings = Omit<SampleArguments, 'logits' | 'vocabulary' | 'positions'>

/** How often each token comes in `draws` positions of one row. */
async function frequencies(
  kernels: Device['kernels'],
  logits: Float32Array,
  draws: number,
  settings: Settings,
): Promise<Float64Array> {
  const vocabulary = logits.length
  const counts = new Float64Array(vocabulary)
  const rows = Math.min(draws, Math.max(1, Math.floor(2 ** 20 / vocabulary)))
  for (let done = 0; done < draws; done += rows) {
    const many = new Float32Array(rows * vocabulary)
    for (let row = 0; row < rows; row++) many.set(logits, row * vocabulary)
    const positions = Int32Array.from({ length: rows }, (_, i) => done + i)
    const { tokens } = await kernels.sample({ ...settings, logits: many, vocabulary, positions })
    for (const token of tokens) counts[token]!++
  }
  return counts
}

/** Pearson's statistic as a normal deviate (Wilson-Hilferty); tokens expected fewer than five times share one cell. */
function deviate(counts: Float64Array, probabilities: ArrayLike<number>): number {
  const draws = counts.reduce((sum, count) => sum + count, 0)
  let [statistic, cells, restCount, restExpected] = [0, 0, 0, 0]
  counts.forEach((count, token) => {
    const expected = draws * probabilities[token]!
    if (expected >= 5) {
      statistic += (count - expected) ** 2 / expected
      cells++
    } else {
      restCount += count
      restExpected += expected
    }
  })
  if (restExpected > 1) {
    statistic += (restCount - restExpected) ** 2 / restExpected
    cells++
  }
  const degrees = cells - 1
  return (Math.cbrt(statistic / degrees) - (1 - 2 / (9 * degrees))) / Math.sqrt(2 / (9 * degrees))
}

/** Probabilities of the kept tokens, by the definition: topK, then topP, then minP. */
function truncated(
  logits: Float32Array,
  { temperature = 1, topK = 0, topP = 1, minP = 0 }: Record<string, number>,
): Float64Array {
  const { logProbs } = logSoftmax(logits, temperature)
  let kept = Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b)
  if (topK > 0) kept = kept.slice(0, topK)
  const mass = kept.reduce((sum, token) => sum + Math.exp(logProbs[token]!), 0)
  let reached = 0
  kept = kept.filter((token) => {
    const wanted = reached < topP * mass
    reached += Math.exp(logProbs[token]!)
    return wanted || topP === 1
  })
  kept = kept.filter((token) => Math.exp(logProbs[token]! - logProbs[kept[0]!]!) >= minP)
  const total = kept.reduce((sum, token) => sum + Math.exp(logProbs[token]!), 0)
  const probabilities = new Float64Array(logits.length)
  for (const token of kept) probabilities[token] = Math.exp(logProbs[token]!) / total
  return probabilities
}

const cases: [vocabulary: number, draws: number, settings: Record<string, number>][] = [
  [2, 20000, {}],
  [3, 20000, { temperature: 2 }],
  [31, 40000, { temperature: 0.7 }],
  [47, 40000, { topK: 5 }],
  [123, 40000, { topP: 0.8 }],
  [123, 40000, { minP: 0.01 }],
  [123, 40000, { temperature: 1.3, topK: 40, topP: 0.9, minP: 0.02 }],
  [1536, 40000, {}],
]

function checkRow(
  t: ExecutionContext,
  logits: Float32Array,
  settings: Record<string, number>,
  result: { token: number; logProb: number; entropy: number; sampled: number },
) {
  const full = logSoftmax(logits, settings.temperature || 1)
  t.true(Math.abs(result.logProb - full.logProbs[result.token]!) < 2e-5)
  t.true(Math.abs(result.entropy - full.entropy) < 2e-5)
  const expected = Math.log(truncated(logits, settings)[result.token]!)
  t.true(
    Math.abs(result.sampled - expected) < 2e-5,
    `sampled log-prob ${result.sampled}, expected ${expected}`,
  )
}

// On the CPU only: the others must draw the same tokens one by one, see the end of this file.
for (const [vocabulary, draws, settings] of cases) {
  test(`sample: frequencies over ${vocabulary} tokens with ${JSON.stringify(settings)} are those of the softmax`, async (t) => {
    const logits = normal(vocabulary, vocabulary, 2)
    const probabilities = truncated(logits, settings)
    const counts = await frequencies(kernels, logits, draws, { ...settings, seed: 11 })
    t.true(deviate(counts, probabilities) < 4, `deviate ${deviate(counts, probabilities)}`)
    counts.forEach((count, token) => {
      if (probabilities[token] === 0) t.is(count, 0, `token ${token} was truncated`)
    })
    // The test can fail: the same counts do not fit a distribution that is a little flatter.
    t.true(
      deviate(counts, truncated(logits, { ...settings, temperature: (settings.temperature ?? 1) * 1.3 })) > 4,
    )
  })
}

test('sample: 49,152 equal logits are all equally likely', async (t) => {
  const counts = await frequencies(kernels, new Float32Array(49152), 3000, { seed: 5 })
  const cells = new Float64Array(64)
  counts.forEach((count, token) => {
    cells[Math.floor(token / 768)]! += count
  })
  t.true(deviate(cells, new Float64Array(64).fill(1 / 64)) < 4)
  t.true(Math.max(...counts) <= 4)
})

for (const { kernels, test } of devices) {
  test('sample: log-probs and entropies are those of the full softmax, sampled log-probs of the truncated one', async (t) => {
    const random = new Random(3)
    for (let round = 0; round < 40; round++) {
      const vocabulary = random.choice([1, 3, 31, 123, 5000])
      const logits = normal(round, vocabulary, 3)
      const settings = {
        temperature: random.choice([0.3, 1, 1.7]),
        topK: random.choice([0, 1, 7]),
        topP: random.choice([1, 0.5, 0.95]),
        minP: random.choice([0, 0.05]),
      }
      const { tokens, logProbs, entropies, sampledLogProbs } = await kernels.sample({
        ...settings,
        logits,
        vocabulary,
        seed: round,
      })
      checkRow(t, logits, settings, {
        token: tokens[0]!,
        logProb: logProbs[0]!,
        entropy: entropies[0]!,
        sampled: sampledLogProbs[0]!,
      })
    }
  })

  test('sample: nothing truncated means the same bits for both log-probs', async (t) => {
    const { logProbs, sampledLogProbs } = await kernels.sample({
      logits: normal(1, 500),
      vocabulary: 50,
      topK: 50,
      seed: 9,
    })
    t.deepEqual(bytes(logProbs), bytes(sampledLogProbs))
  })

  test('sample: temperature 0 takes the largest logit, the lowest index on a tie', async (t) => {
    const rows = [
      [1, 5, 5, 2],
      [-3, -3, -3, -3],
      [0, 1, 2, 9],
      [-Infinity, -Infinity, 4, 4],
    ]
    const { tokens, logProbs } = await kernels.sample({
      logits: Float32Array.from(rows.flat()),
      vocabulary: 4,
      temperature: 0,
      topP: 0.1,
    })
    t.deepEqual(Array.from(tokens), [1, 0, 3, 2])
    rows.forEach((row, i) => {
      t.true(Math.abs(logProbs[i]! - logSoftmax(row, 1).logProbs[tokens[i]!]!) < 1e-6)
    })
  })

  test('sample: ties at the edge of topK keep the lower index', async (t) => {
    const counts = await frequencies(kernels, Float32Array.of(0, 1, 1, 1, 0), 500, { topK: 2 })
    t.deepEqual(
      Array.from(counts, (count) => count > 0),
      [false, true, true, false, false],
    )
  })

  test('sample: a token of probability 0 is never drawn, and has no part in the entropy', async (t) => {
    const logits = Float32Array.of(-Infinity, 0, -200, -Infinity, 0)
    const { entropies } = await kernels.sample({ logits, vocabulary: 5 })
    t.true(Math.abs(entropies[0]! - Math.log(2)) < 1e-6)
    const counts = await frequencies(kernels, logits, 2000, {})
    t.deepEqual(
      Array.from(counts, (count) => count > 0),
      [false, true, false, false, true],
    )
  })

  test('sample: a draw depends on seed, sample and position only', async (t) => {
    const [rows, vocabulary] = [37, 1000]
    const logits = normal(1, rows * vocabulary)
    const settings = {
      seed: BigUint64Array.from({ length: rows }, (_, i) => 2n ** 40n + BigInt(i % 5)),
      samples: Int32Array.from({ length: rows }, (_, i) => i % 3),
      positions: Int32Array.from({ length: rows }, (_, i) => i),
      topP: Float32Array.from({ length: rows }, (_, i) => (i % 2 ? 0.9 : 1)),
    }
    const whole = await kernels.sample({ logits, vocabulary, ...settings }, { threads: 1 })
    for (const threads of [1, 2, 3]) {
      for (const row of [0, 13, 36]) {
        const one = await kernels.sample(
          {
            logits: logits.slice(row * vocabulary, (row + 1) * vocabulary),
            vocabulary,
            seed: settings.seed[row]!,
            samples: settings.samples.slice(row, row + 1),
            positions: settings.positions.slice(row, row + 1),
            topP: settings.topP[row]!,
          },
          { threads },
        )
        t.is(one.tokens[0], whole.tokens[row])
        t.is(one.logProbs[0], whole.logProbs[row])
        t.is(one.sampledLogProbs[0], whole.sampledLogProbs[row])
      }
    }
    const other = await kernels.sample({
      logits,
      vocabulary,
      ...settings,
      samples: settings.samples.map((s) => s + 1),
    })
    t.notDeepEqual(other.tokens, whole.tokens)
  })

  test('sample: a truncation that drops only what could not come draws the same tokens', async (t) => {
    for (const vocabulary of [2, 31, 123, 5003]) {
      const rows = 50
      const logits = normal(vocabulary, rows * vocabulary)
      for (let row = 0; row < rows; row++) logits[row * vocabulary + (row % vocabulary)] = -1000
      const args = { logits, vocabulary, seed: 3, positions: Int32Array.from({ length: rows }, (_, i) => i) }
      const { tokens } = await kernels.sample(args)
      t.deepEqual((await kernels.sample({ ...args, topK: vocabulary - 1 })).tokens, tokens)
      t.deepEqual((await kernels.sample({ ...args, minP: 1e-9 })).tokens, tokens)
    }
  })

  test('sample: a minP of any size drops what is too improbable to have a mass', async (t) => {
    const logits = new Float32Array(100000).fill(-22.5)
    logits[5] = 0
    const { sampledLogProbs } = await kernels.sample({ logits, vocabulary: logits.length, minP: 1e-12 })
    t.is(sampledLogProbs[0], 0)
  })

  test('sample: the first draws of a seed never change', async (t) => {
    const { tokens } = await kernels.sample({
      logits: normal(2, 8 * 100),
      vocabulary: 100,
      seed: 42,
      positions: Int32Array.of(0, 1, 2, 3, 4, 5, 6, 7),
    })
    t.deepEqual(Array.from(tokens), [23, 24, 55, 27, 34, 0, 2, 10])
  })

  test('sample: no rows give no tokens', async (t) => {
    t.is((await kernels.sample({ logits: new Float32Array(0), vocabulary: 7 })).tokens.length, 0)
  })
}

if (hasEmulated) {
  emulated.test('sample: equal logits and seed give the token of the CPU', async (t) => {
    const random = new Random(9)
    for (let round = 0; round < 30; round++) {
      const [vocabulary, rows] = [random.choice([3, 31, 500, 1537]), 16]
      let logits = normal(round, rows * vocabulary, random.choice([0.5, 3]))
      // Ties, at the edges of what is kept too.
      if (round % 3 === 0) logits = logits.map((logit) => Math.round(logit * 2) / 2)
      const settings = {
        temperature: random.choice([0, 0.3, 1, 1.7]),
        topK: random.choice([0, 1, 7, 400]),
        topP: random.choice([1, 0.5, 0.95, 1e-6]),
        minP: random.choice([0, 0.05, 1]),
      }
      const args = {
        ...settings,
        logits,
        vocabulary,
        seed: 2n ** 40n * BigInt(round) + 7n,
        positions: Int32Array.from({ length: rows }, (_, i) => i),
      }
      loadEmulated().emulation.setSeed(round)
      const result = await emulated.kernels.sample(args)
      const expected = await kernels.sample(args)
      t.deepEqual(result.tokens, expected.tokens, JSON.stringify({ vocabulary, ...settings }))
      close(t, 'sampledLogProbs', result.sampledLogProbs, expected.sampledLogProbs, {
        absolute: 2e-6,
        relative: 2e-6,
      })
    }
    loadEmulated().emulation.setSeed(0)
  })
}
