/** Log-probs of `generate`, `score` and the learner's forward pass are the same bits. */
import type { ExecutionContext } from 'ava'
import { type Completion, Policy, Session } from '../../lib/index.ts'
import type { DType } from '../../lib/native.ts'
import { Random } from '../../lib/random.ts'
import type { Learner } from '../../lib/training/learner.ts'
import { someTokens } from '../helpers/byte-policy.ts'
import { inexactnesses, newLearner, raggedBatch } from '../helpers/exactness.ts'
import { fixtureNames, Reference } from '../helpers/reference.ts'
import { sharedPath, testWithShared } from '../helpers/shared.ts'

const dtypes = ['f32', 'bf16'] as const
const threadCounts = [1, 2, 3] as const
const smollm2 = sharedPath('models', 'smollm2-135m-instruct')

interface Subject {
  policy: Policy
  learner: Learner
}

async function load(t: ExecutionContext, source: string, dtype: DType, threads = 2): Promise<Subject> {
  const policy = await Policy.load(source, { dtype, threads })
  t.teardown(() => policy.dispose())
  t.true(policy.exact)
  t.is(policy.threads, threads)
  return { policy, learner: newLearner(policy) }
}

async function free({ policy, learner }: Subject): Promise<void> {
  await learner.dispose()
  await policy.dispose()
}

async function assertExact(
  t: ExecutionContext,
  { policy, learner }: Subject,
  completions: Completion[],
  temperature = 1,
) {
  t.deepEqual(await inexactnesses(policy, learner, completions, temperature), [])
}

for (const name of fixtureNames) {
  for (const dtype of dtypes) {
    testWithShared(`${name}, ${dtype}: batches of every size from 1 to 65 are exact`, async (t) => {
      const subjects: Subject[] = []
      for (const threads of threadCounts) {
        subjects.push(await load(t, new Reference(name).folder, dtype, threads))
      }
      const { vocabSize } = subjects[0]!.policy.config
      for (let rows = 1; rows <= 65; rows++) {
        const subject = subjects[rows % subjects.length]!
        const requests = raggedBatch({ rows, seed: rows, vocabSize, longestPrompt: 40, mostNew: 3 })
        const temperature = 0.5 + 0.02 * rows
        const options = { temperature, seed: rows, ignoreEnd: true }
        const completions = await subject.policy.generate(requests, options)
        t.is(completions.length, rows)
        await assertExact(t, subject, completions, temperature)
      }
    })

    testWithShared(`${name}, ${dtype}: prompts of every length to 600 are exact`, async (t) => {
      const subject = await load(t, new Reference(name).folder, dtype)
      const { vocabSize, maxPositions } = subject.policy.config
      const lengths = Array.from({ length: Math.min(600, maxPositions - 2) }, (_, i) => i + 1)
      const requests = lengths.map((length, i) => ({ tokens: someTokens(length, i, vocabSize) }))
      const completions = await subject.policy.generate(requests, {
        seed: 1,
        maxNewTokens: 2,
        ignoreEnd: true,
      })
      t.is(completions.length, lengths.length)
      await assertExact(t, subject, completions)
    })

    testWithShared(
      `${name}, ${dtype}: the same tokens and bits with 1, 2 and 3 threads, alone or in a batch`,
      async (t) => {
        const batch = raggedBatch({ rows: 9, seed: 9, vocabSize: 512, longestPrompt: 200, mostNew: 5 })
        const requests = batch.map((request, i) => ({ ...request, seed: i }))
        const results: Completion[][] = []
        for (const threads of threadCounts) {
          const { policy } = await load(t, new Reference(name).folder, dtype, threads)
          results.push(await policy.generate(requests, { ignoreEnd: true }))
          const alone: Completion[] = []
          for (const [requestIndex, request] of requests.entries()) {
            const completions = await policy.generate([request], { ignoreEnd: true })
            alone.push(...completions.map((completion) => ({ ...completion, requestIndex })))
          }
          results.push(alone)
        }
        for (const result of results) t.deepEqual(result, results[0])
      },
    )

    testWithShared(`${name}, ${dtype}: rows that were preempted and computed again are exact`, async (t) => {
      const subject = await load(t, new Reference(name).folder, dtype)
      const { numLayers, numKvHeads, headDim, vocabSize } = subject.policy.config
      const pageBytes = 2 * numLayers * 64 * numKvHeads * headDim * (dtype === 'f32' ? 4 : 2)
      subject.policy.setCacheBudget(7 * pageBytes)
      const requests = Array.from({ length: 10 }, (_, i) => ({
        tokens: someTokens(40 + i * 7, i, vocabSize),
        n: 1 + (i % 3),
        maxNewTokens: 40,
      }))
      const completions = await subject.policy.generate(requests, { seed: 3, ignoreEnd: true })
      t.true((await subject.policy.generatorStatistics()).preemptions > 0)
      await assertExact(t, subject, completions)
    })

    testWithShared(
      `${name}, ${dtype}: what follows appended text, in sessions and forks, is exact`,
      async (t) => {
        const subject = await load(t, new Reference(name).folder, dtype)
        const { vocabSize } = subject.policy.config
        const completions: Completion[] = []
        for (const [round, length] of [1, 3, 31, 64, 100].entries()) {
          const session = await Session.open(subject.policy, someTokens(length, round, vocabSize))
          const options = { seed: round, maxNewTokens: 4, ignoreEnd: true }
          completions.push(await session.generate(options))
          await session.append(someTokens(1 + round * 29, 50 + round, vocabSize))
          for (const [sampleIndex, fork] of (await session.fork(2)).entries()) {
            completions.push(await fork.generate({ ...options, sampleIndex }))
            await fork.append(someTokens(2, 90 + sampleIndex, vocabSize))
            completions.push(await fork.generate({ ...options, sampleIndex }))
            fork.close()
          }
          session.close()
        }
        await assertExact(t, subject, completions)
      },
    )
  }
}

testWithShared('the comparison finds one bit that differs', async (t) => {
  const { policy, learner } = await load(t, new Reference('llama').folder, 'f32')
  const requests = [{ tokens: someTokens(5, 1, policy.config.vocabSize) }]
  const [completion] = await policy.generate(requests, { seed: 1, maxNewTokens: 3, ignoreEnd: true })
  for (const name of ['logProbs', 'entropies'] as const) {
    const values = completion![name].slice()
    new Uint32Array(values.buffer)[1]! ^= 1
    const found = await inexactnesses(policy, learner, [{ ...completion!, [name]: values }], 1)
    t.true(found.length > 0, name)
  }
})

const combinations = 40

testWithShared(
  `SmolLM2: ${combinations} random combinations of batch, prompts, temperature, threads and type are exact`,
  async (t) => {
    t.timeout(10 * 60_000)
    const settings = threadCounts.flatMap((threads) => dtypes.map((dtype) => ({ threads, dtype })))
    let checked = 0
    for (const [which, { threads, dtype }] of settings.entries()) {
      // One after the other: each needs a gigabyte.
      const subject = await load(t, smollm2, dtype, threads)
      const { vocabSize } = subject.policy.config
      for (let seed = which; seed < combinations; seed += settings.length) {
        const random = new Random(seed)
        const temperature = 0.3 + random.integer(13) / 10
        const rows = 1 + random.integer(4)
        const requests = raggedBatch({ rows, seed, vocabSize, longestPrompt: 300, mostNew: 3 })
        const completions = await subject.policy.generate(requests, { seed, temperature, ignoreEnd: true })
        await assertExact(t, subject, completions, temperature)
        checked++
      }
      await free(subject)
    }
    t.is(checked, combinations)
  },
)

testWithShared('SmolLM2: the same tokens and bits with 1, 2 and 3 threads', async (t) => {
  for (const dtype of dtypes) {
    const results: Completion[][] = []
    for (const threads of threadCounts) {
      const subject = await load(t, smollm2, dtype, threads)
      const requests = raggedBatch({ rows: 4, seed: 21, vocabSize: 49_152, longestPrompt: 120, mostNew: 4 })
      results.push(await subject.policy.generate(requests, { seed: 4, temperature: 0.8, ignoreEnd: true }))
      await free(subject)
    }
    t.deepEqual(results[1], results[0])
    t.deepEqual(results[2], results[0])
  }
})
