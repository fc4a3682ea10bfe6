/** A whole model on a CUDA device, emulated unless there is one: against transformers, against the CPU, and against itself bit for bit. */

import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { ExecutionContext } from 'ava'
import { type Completion, Policy, Session } from '../../lib/index.ts'
import { someTokens } from '../helpers/byte-policy.ts'
import { schedules, testCudaWithShared } from '../helpers/emulated-process.ts'
import { raggedBatch } from '../helpers/exactness.ts'
import { concat, fixtureNames, largestDifference, largestError, Reference } from '../helpers/reference.ts'

const dtypes = ['f32', 'bf16'] as const
// Between the two devices in bf16: each layer rounds what it adds up in another order.
const tolerance = { f32: 1e-4, bf16: 0.05 }

async function load(
  t: ExecutionContext,
  name: string,
  dtype: 'f32' | 'bf16',
  device: 'cpu' | 'cuda' = 'cuda',
) {
  const policy = await Policy.load(new Reference(name).folder, { dtype, device })
  t.teardown(() => policy.dispose())
  t.true(policy.exact)
  return policy
}

const whole = ({ promptTokens, tokens }: Completion) => Int32Array.of(...promptTokens, ...tokens)

async function assertScoresEqual(
  t: ExecutionContext,
  policy: Policy,
  completions: Completion[],
  temperature: number,
) {
  const scores = await policy.score(completions.map(whole), { temperature })
  for (const [i, { promptTokens, logProbs, entropies }] of completions.entries()) {
    t.deepEqual(scores[i]!.logProbs.slice(promptTokens.length - 1), logProbs)
    t.deepEqual(scores[i]!.entropies.slice(promptTokens.length - 1), entropies)
  }
}

for (const name of fixtureNames) {
  testCudaWithShared(
    `${name}: log-probs, entropies and greedy tokens are those of transformers`,
    async (t) => {
      const reference = new Reference(name)
      const policy = await load(t, name, 'f32')
      t.is(policy.device, 'cuda:0')
      const scores = await policy.score(reference.sequences)
      const all = (key: 'logProbs' | 'entropies') => concat(scores.map((score) => score[key]))
      t.true(largestError(all('logProbs'), concat(reference.perToken('logprobs'))) < 1e-4)
      t.true(largestError(all('entropies'), concat(reference.perToken('entropy'))) < 1e-4)
      const { prompt, greedy } = reference.greedy
      const [completion] = await policy.generate([
        { tokens: prompt, maxNewTokens: greedy.length, temperature: 0, ignoreEnd: true },
      ])
      t.deepEqual(completion!.tokens, greedy)
    },
  )

  for (const dtype of dtypes) {
    testCudaWithShared(`${name}, ${dtype}: log-probs are the CPU's within ${tolerance[dtype]}`, async (t) => {
      const { sequences } = new Reference(name)
      const [onCpu, onDevice] = [await load(t, name, dtype, 'cpu'), await load(t, name, dtype)]
      const [expected, scores] = [await onCpu.score(sequences), await onDevice.score(sequences)]
      for (const [i, { logProbs }] of scores.entries()) {
        t.true(largestDifference(logProbs, expected[i]!.logProbs) < tolerance[dtype])
      }
    })

    testCudaWithShared(
      `${name}, ${dtype}: sampled in batches, groups, sessions and forks, log-probs are those of score`,
      async (t) => {
        const policy = await load(t, name, dtype)
        const { vocabSize } = policy.config
        for (const [seed, schedule] of schedules.entries()) {
          schedule()
          const requests = raggedBatch({ rows: 5, seed, vocabSize, longestPrompt: 90, mostNew: 4 })
          const completions = await policy.generate(requests, { temperature: 0.8, seed, ignoreEnd: true })
          await assertScoresEqual(t, policy, completions, 0.8)
          // One row alone has the tokens and bits that it had among others.
          const [alone] = await policy.generate([{ ...requests[0]!, n: 1 }], {
            temperature: 0.8,
            seed,
            ignoreEnd: true,
          })
          t.deepEqual([alone!.tokens, alone!.logProbs], [completions[0]!.tokens, completions[0]!.logProbs])
        }
        const session = await Session.open(policy, someTokens(61, 7, vocabSize))
        await session.generate({ maxNewTokens: 3, seed: 1, ignoreEnd: true })
        await session.append(someTokens(6, 8, vocabSize))
        const [fork] = await session.fork(1)
        for (const each of [session, fork!]) {
          await assertScoresEqual(
            t,
            policy,
            [await each.generate({ maxNewTokens: 3, seed: 2, ignoreEnd: true })],
            1,
          )
          each.close()
        }
      },
    )
  }
}

testCudaWithShared('what was loaded on a device is saved as it was', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'ssrl-cuda-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const [onCpu, onDevice] = [await load(t, 'qwen2', 'bf16', 'cpu'), await load(t, 'qwen2', 'bf16')]
  const files = await Promise.all(
    [onCpu, onDevice].map(async (policy, i) => {
      const directory = path.join(folder, String(i))
      await policy.save(directory)
      return readFile(path.join(directory, 'model.safetensors'))
    }),
  )
  t.true(files[0]!.equals(files[1]!))
})
