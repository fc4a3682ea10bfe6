import test, { type ExecutionContext } from 'ava'
import { type Completion, type GenerateRequest, Policy, Session } from '../../lib/index.ts'
import type { DType } from '../../lib/native.ts'
import { Random } from '../../lib/random.ts'
import { Learner } from '../../lib/training/learner.ts'
import { bytePolicy, someTokens } from '../helpers/byte-policy.ts'
import { fixtureNames, Reference } from '../helpers/reference.ts'
import { readSafetensors } from '../helpers/safetensors.ts'
import { sharedPath, testWithShared } from '../helpers/shared.ts'

const dtypes = ['f32', 'bf16'] as const
const smollm2 = sharedPath('models', 'smollm2-135m-instruct')

async function load(t: ExecutionContext, source: string, dtype: DType, threads = 2): Promise<Policy> {
  const policy = await Policy.load(source, { dtype, threads })
  t.teardown(() => policy.dispose())
  return policy
}

const whole = ({ promptTokens, tokens }: Completion) => Int32Array.of(...promptTokens, ...tokens)

/** The completions' log-probs and entropies are those of scoring, and of the learner's forward pass, bit for bit. */
async function assertExact(
  t: ExecutionContext,
  policy: Policy,
  completions: Completion[],
  temperature: number,
) {
  const sequences = completions.map(whole)
  const scores = await policy.score(sequences, { temperature })
  for (const [i, { promptTokens, logProbs, entropies }] of completions.entries()) {
    t.deepEqual(logProbs, scores[i]!.logProbs.slice(promptTokens.length - 1))
    t.deepEqual(entropies, scores[i]!.entropies.slice(promptTokens.length - 1))
  }
  const learner = new Learner(policy, { learningRate: 0 })
  const mask = ({ promptTokens, tokens }: Completion) =>
    Uint8Array.from({ length: promptTokens.length + tokens.length - 1 }, (_, j) =>
      Number(j >= promptTokens.length - 1),
    )
  const oldLogProbs = completions.map(({ promptTokens, logProbs }) =>
    Float32Array.of(...new Float32Array(promptTokens.length - 1), ...logProbs),
  )
  const advantages = Float32Array.from(completions, (_, i) => (i % 2 ? 1 : -1))
  const { mismatch, tokens, ratioMax } = await learner.accumulate(
    { tokens: sequences, lossMask: completions.map(mask), advantages, oldLogProbs },
    { type: 'grpo', epsilon: 0.2, epsilonHigh: 0.2, beta: 0, temperature },
  )
  t.is(
    tokens,
    completions.reduce((sum, completion) => sum + completion.tokens.length, 0),
  )
  t.is(mismatch, 0)
  t.is(ratioMax, 1)
  await learner.dispose()
}

/** A batch of `size` requests: prompts of 1 to 300 tokens, groups of 1 to 4, different lengths. */
function mixedBatch(size: number, seed: number, vocabSize: number, mostNew: number): GenerateRequest[] {
  const random = new Random(seed)
  return Array.from({ length: size }, (_, i) => ({
    tokens: someTokens(1 + random.integer(300), seed * 100 + i, vocabSize),
    n: random.chance(0.3) ? 1 + random.integer(4) : 1,
    maxNewTokens: 1 + random.integer(mostNew),
  }))
}

for (const name of fixtureNames) {
  for (const dtype of dtypes) {
    testWithShared(
      `${name}, ${dtype}: generated log-probs are the scorer's and the learner's, bit for bit, in batches of every size`,
      async (t) => {
        const policy = await load(t, new Reference(name).folder, dtype)
        t.true(policy.exact)
        const { vocabSize } = policy.config
        for (let size = 1; size <= 12; size++) {
          const temperature = 0.5 + 0.1 * size
          const completions = await policy.generate(mixedBatch(size, size, vocabSize, 6), {
            temperature,
            seed: size,
            ignoreEnd: true,
          })
          await assertExact(t, policy, completions, temperature)
        }
      },
    )

    testWithShared(
      `${name}, ${dtype}: every prompt length from 1 to 130 gives the scorer's log-probs`,
      async (t) => {
        const policy = await load(t, new Reference(name).folder, dtype)
        const requests = Array.from({ length: 130 }, (_, i) => ({
          tokens: someTokens(i + 1, i, policy.config.vocabSize),
        }))
        const completions = await policy.generate(requests, { seed: 1, maxNewTokens: 2, ignoreEnd: true })
        t.is(completions.length, 130)
        await assertExact(t, policy, completions, 1)
      },
    )

    testWithShared(
      `${name}, ${dtype}: the same tokens and bits with 1, 2 and 3 threads, alone or in a batch`,
      async (t) => {
        const { folder } = new Reference(name)
        const requests = mixedBatch(6, 9, 512, 5).map((request, i) => ({ ...request, seed: i }))
        const results: Completion[][] = []
        for (const threads of [1, 2, 3]) {
          const policy = await load(t, folder, dtype, threads)
          t.is(policy.threads, threads)
          results.push(await policy.generate(requests, { ignoreEnd: true }))
          const alone = []
          for (const request of requests)
            alone.push(...(await policy.generate([request], { ignoreEnd: true })))
          results.push(
            alone.map((completion, i) => ({ ...completion, requestIndex: results[0]![i]!.requestIndex })),
          )
        }
        for (const result of results) t.deepEqual(result, results[0])
      },
    )
  }

  testWithShared(`${name}, f32: greedy tokens are those of transformers`, async (t) => {
    const reference = new Reference(name)
    const greedy = readSafetensors(`${reference.folder}/reference.safetensors`).get('greedy')!
      .data as Int32Array
    const policy = await load(t, reference.folder, 'f32')
    const [completion] = await policy.generate([{ tokens: greedy.slice(0, 20) }], {
      temperature: 0,
      maxNewTokens: 24,
      ignoreEnd: true,
    })
    t.deepEqual(completion!.tokens, greedy.slice(20))
    await assertExact(t, policy, [completion!], 1)
  })
}

testWithShared(
  'SmolLM2: greedy tokens are those of transformers; random combinations are exact with 1, 2 and 3 threads',
  async (t) => {
    // One after the other: each needs a gigabyte.
    await assertGreedy(t, await load(t, smollm2, 'f32'))
    for (const dtype of dtypes) {
      const results: Completion[][] = []
      for (const threads of [1, 2, 3]) {
        const policy = await load(t, smollm2, dtype, threads)
        t.true(policy.exact)
        const requests = mixedBatch(4, 21, policy.config.vocabSize, 5)
        const completions = await policy.generate(requests, { seed: 4, temperature: 0.8, ignoreEnd: true })
        await assertExact(t, policy, completions, 0.8)
        results.push(completions)
        await policy.dispose()
      }
      t.deepEqual(results[1], results[0])
      t.deepEqual(results[2], results[0])
    }
  },
)

/** The reference was made with end tokens forbidden: up to the first one that we draw, tokens must be equal. */
async function assertGreedy(t: ExecutionContext, policy: Policy) {
  const reference = readSafetensors(sharedPath('fixtures', 'smollm2', 'reference.safetensors'))
  const names = [...reference.keys()].filter((name) => name.endsWith('.greedy'))
  const data = (name: string) => reference.get(name)!.data as Int32Array
  const requests = names.map((name) => ({
    tokens: data(name.replace('greedy', 'ids')).slice(0, data(name.replace('greedy', 'prompt_len'))[0]),
    maxNewTokens: data(name).length,
  }))
  const completions = await policy.generate(requests, { temperature: 0 })
  t.true(completions.length > 0)
  completions.forEach(({ tokens, finishReason }, i) => {
    const ours = finishReason === 'end' ? tokens.slice(0, -1) : tokens
    t.deepEqual(ours, data(names[i]!).slice(0, ours.length), names[i])
  })
  t.true(completions.some(({ finishReason }) => finishReason === 'length'))
  await policy.dispose()
}

test('a cache that is too small for the batch makes rows wait and be recomputed, and changes nothing', async (t) => {
  const requests = Array.from({ length: 12 }, (_, i) => ({
    tokens: someTokens(40 + i * 11, i, 256),
    n: 1 + (i % 3),
    maxNewTokens: 60,
  }))
  const options = { seed: 3, ignoreEnd: true }
  const policy = await bytePolicy(t)
  const roomy = await policy.generate(requests, options)
  t.is((await policy.generatorStatistics()).preemptions, 0)
  const pageBytes = 2 * 2 * 64 * 20 * 4
  for (const pages of [5, 7, 13, 40]) {
    const tight = await bytePolicy(t)
    tight.setCacheBudget(pages * pageBytes)
    t.deepEqual(await tight.generate(requests, options), roomy, `${pages} pages`)
    const { preemptions, pagesTotal, pagesUsed } = await tight.generatorStatistics()
    t.is(pagesTotal, pages)
    t.is(pagesUsed, 0)
    t.true(preemptions > 0, `${pages} pages`)
  }
})

test('a sequence that outgrows the whole cache is ERR_OUT_OF_MEMORY, and the policy goes on', async (t) => {
  const policy = await bytePolicy(t)
  policy.setCacheBudget(2 * 2 * 2 * 64 * 20 * 4)
  const long = { tokens: someTokens(200, 1, 256) }
  await t.throwsAsync(policy.generate([long]), { code: 'ERR_OUT_OF_MEMORY', message: /budget/ })
  const [completion] = await policy.generate([{ tokens: someTokens(3, 1, 256) }], { maxNewTokens: 4 })
  t.true(completion!.tokens.length > 0)
})

test('a group computes its prompt once', async (t) => {
  const policy = await bytePolicy(t)
  const tokens = someTokens(150, 1, 256)
  await policy.generate([{ tokens, n: 16 }], { maxNewTokens: 3, ignoreEnd: true })
  const { prefilledTokens, decodedTokens } = await policy.generatorStatistics()
  t.is(prefilledTokens, 150)
  t.is(decodedTokens, 48)
})

test('a group of more samples than decode at once gives each the tokens that it has alone', async (t) => {
  const policy = await bytePolicy(t)
  const tokens = someTokens(70, 1, 256)
  const options = { seed: 5, maxNewTokens: 3, ignoreEnd: true }
  const all = await policy.generate([{ tokens, n: 600, seed: 8 }], options)
  t.is(all.length, 600)
  t.deepEqual(
    all.map(({ sampleIndex }) => sampleIndex),
    Array.from({ length: 600 }, (_, i) => i),
  )
  const few = await policy.generate([{ tokens, n: 20, seed: 8 }], options)
  t.deepEqual(all.slice(0, 20), few)
})

test('weights that change in the middle of a session are used from then on, as by a fresh policy', async (t) => {
  const policy = await bytePolicy(t)
  const prompt = someTokens(80, 1, 256)
  const session = await Session.open(policy, prompt)
  const name = 'model.layers.0.mlp.down_proj.weight'
  const values = (await policy.readParameter(name)).map((value) => value * 1.5)
  await policy.writeParameter(name, values)
  const options = { seed: 2, maxNewTokens: 12, ignoreEnd: true }
  const after = await session.generate(options)
  const [fresh] = await policy.generate([{ tokens: prompt, seed: 2 }], options)
  t.deepEqual(after.logProbs, fresh!.logProbs)
  t.deepEqual(after.tokens, fresh!.tokens)
})
