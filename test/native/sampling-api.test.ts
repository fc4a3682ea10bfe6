import test from 'ava'
import fc from 'fast-check'
import type { Completion } from '../../lib/index.ts'
import { bytePolicy, someTokens } from '../helpers/byte-policy.ts'

const prompt = { tokens: someTokens(20, 3, 256) }
const tokensOf = (completions: Completion[]) => completions.map(({ tokens }) => [...tokens])

test('the same seed gives the same tokens, another seed others', async (t) => {
  const policy = await bytePolicy(t)
  const run = async (seed: number | bigint) =>
    tokensOf(await policy.generate([prompt], { seed, maxNewTokens: 20, ignoreEnd: true }))
  t.deepEqual(await run(1), await run(1))
  t.deepEqual(await run(1n), await run(1))
  t.notDeepEqual(await run(1), await run(2))
})

test('both halves of a 64-bit seed count', async (t) => {
  const policy = await bytePolicy(t)
  const run = async (seed: bigint) =>
    tokensOf(await policy.generate([{ ...prompt, seed }], { maxNewTokens: 20, ignoreEnd: true }))
  t.notDeepEqual(await run(5n), await run(5n + 2n ** 32n))
  t.notDeepEqual(await run(2n ** 64n - 1n), await run(2n ** 32n - 1n))
})

test('without a seed every call draws anew', async (t) => {
  const policy = await bytePolicy(t)
  const run = async () => tokensOf(await policy.generate([prompt], { maxNewTokens: 20, ignoreEnd: true }))
  t.notDeepEqual(await run(), await run())
})

test('requests of one call, and samples of one request, differ', async (t) => {
  const policy = await bytePolicy(t)
  const options = { seed: 1, maxNewTokens: 20, ignoreEnd: true }
  const completions = await policy.generate([{ ...prompt, n: 3 }, prompt, prompt], options)
  t.is(new Set(tokensOf(completions).map(String)).size, 5)
  t.deepEqual(
    completions.map(({ requestIndex, sampleIndex }) => [requestIndex, sampleIndex]),
    [
      [0, 0],
      [0, 1],
      [0, 2],
      [1, 0],
      [2, 0],
    ],
  )
})

test("a request's tokens depend on its seed, not on its place or its neighbours", async (t) => {
  const policy = await bytePolicy(t)
  const mine = { ...prompt, seed: 77, n: 2, maxNewTokens: 15 }
  const [alone, other] = await policy.generate([mine], { ignoreEnd: true })
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ length: fc.integer({ min: 1, max: 90 }), n: fc.integer({ min: 1, max: 3 }) }), {
        maxLength: 6,
      }),
      fc.nat(6),
      async (neighbours, place) => {
        const requests = neighbours.map(({ length, n }, i) => ({ tokens: someTokens(length, i, 256), n }))
        const at = Math.min(place, requests.length)
        const batch = [...requests.slice(0, at), mine, ...requests.slice(at)]
        const completions = await policy.generate(batch, { maxNewTokens: 7, ignoreEnd: true })
        const found = completions.filter(({ requestIndex }) => requestIndex === at)
        t.deepEqual(tokensOf(found), tokensOf([alone!, other!]))
        t.deepEqual(found[0]!.logProbs, alone!.logProbs)
      },
    ),
    { numRuns: 15 },
  )
})

test('temperature 0 is greedy: topK 1 gives the same tokens, and log-probs are those of temperature 1', async (t) => {
  const policy = await bytePolicy(t)
  const options = { maxNewTokens: 20, ignoreEnd: true }
  const [greedy] = await policy.generate([prompt], { ...options, temperature: 0 })
  const [topOne] = await policy.generate([prompt], { ...options, topK: 1, seed: 9 })
  t.deepEqual(greedy!.tokens, topOne!.tokens)
  t.deepEqual(greedy!.logProbs, topOne!.logProbs)
  t.is(greedy!.sampledLogProbs, undefined)
  t.true(topOne!.sampledLogProbs!.every((value) => value === 0))
})

test('topK, topP and minP draw from the likeliest tokens only, and say the truncated log-prob', async (t) => {
  const policy = await bytePolicy(t)
  const logits = await policy.logits(prompt.tokens)
  const size = policy.config.vocabSize
  const row = Float64Array.from(logits.slice(-size))
  const total = row.reduce((sum, value) => sum + Math.exp(value), 0)
  const probabilities = row.map((value) => Math.exp(value) / total)
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b]! - probabilities[a]!)
  const nucleus = (p: number) => {
    let sum = 0
    return order.filter((id) => {
      const inside = sum < p
      sum += probabilities[id]!
      return inside
    })
  }
  const cases = [
    { options: { topK: 5 }, allowed: order.slice(0, 5) },
    { options: { topP: 0.1 }, allowed: nucleus(0.1) },
    {
      options: { minP: 0.5 },
      allowed: order.filter((id) => probabilities[id]! >= 0.5 * probabilities[order[0]!]!),
    },
  ]
  for (const { options, allowed } of cases) {
    const completions = await policy.generate([{ ...prompt, n: 400 }], {
      ...options,
      seed: 1,
      maxNewTokens: 1,
    })
    const seen = new Set(completions.map(({ tokens }) => tokens[0]!))
    t.deepEqual(
      [...seen].filter((id) => !allowed.includes(id)),
      [],
      JSON.stringify(options),
    )
    t.true(seen.size > 1)
    const mass = allowed.reduce((sum, id) => sum + probabilities[id]!, 0)
    for (const { tokens, logProbs, sampledLogProbs } of completions) {
      const probability = probabilities[tokens[0]!]!
      t.true(Math.abs(logProbs[0]! - Math.log(probability)) < 1e-4)
      t.true(Math.abs(sampledLogProbs![0]! - Math.log(probability / mass)) < 1e-4)
    }
  }
})

test('tokens come as often as their probability says (chi-square over 8,000 draws)', async (t) => {
  const policy = await bytePolicy(t)
  const temperature = 0.7
  const logits = (await policy.logits(prompt.tokens)).slice(-policy.config.vocabSize)
  const weights = Float64Array.from(logits, (value) => Math.exp(value / temperature))
  const total = weights.reduce((sum, value) => sum + value)
  const draws = 8000
  const counts = new Float64Array(weights.length)
  const completions = await policy.generate([{ ...prompt, n: draws }], {
    temperature,
    seed: 11,
    maxNewTokens: 1,
  })
  for (const { tokens } of completions) counts[tokens[0]!]!++
  let statistic = 0
  let restExpected = 0
  let restCount = 0
  let cells = 0
  weights.forEach((weight, id) => {
    const expected = (draws * weight) / total
    if (expected < 5) {
      restExpected += expected
      restCount += counts[id]!
      return
    }
    statistic += (counts[id]! - expected) ** 2 / expected
    cells++
  })
  if (restExpected > 0) statistic += (restCount - restExpected) ** 2 / restExpected
  // Wilson-Hilferty: the statistic's cube root is about normal; four deviations
  const z = (Math.cbrt(statistic / cells) - (1 - 2 / (9 * cells))) / Math.sqrt(2 / (9 * cells))
  t.true(cells > 20)
  t.true(Math.abs(z) < 4, `z = ${z}`)
})
