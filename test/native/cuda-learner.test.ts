/** Learning on a CUDA device, emulated unless there is one: against transformers, the CPU, and its own sampler. */
import type { ExecutionContext } from 'ava'
import { Learner, Policy } from '../../lib/index.ts'
import { schedules, testCudaWithShared } from '../helpers/emulated-process.ts'
import { inexactnesses, newLearner, raggedBatch } from '../helpers/exactness.ts'
import { fixtureNames, largestDifference, largestMagnitude, Reference } from '../helpers/reference.ts'

const learningRate = 1e-3
// So high that the tiny models, whose distributions are sharp, give a group different tokens.
const temperature = 4

async function open(
  t: ExecutionContext,
  name: string,
  dtype: 'f32' | 'bf16',
  device: 'cpu' | 'cuda' = 'cuda',
) {
  const policy = await Policy.load(new Reference(name).folder, { dtype, device })
  const learner = new Learner(policy, { learningRate, weightDecay: 0.01 })
  t.teardown(async () => {
    learner.dispose()
    await policy.dispose()
  })
  return { policy, learner }
}

for (const name of fixtureNames) {
  testCudaWithShared(
    `${name}: grpo gradients, their norm and an AdamW step are those of transformers`,
    async (t) => {
      const reference = new Reference(name)
      const { policy, learner } = await open(t, name, 'f32')
      await learner.accumulate(reference.batch('grpo'), reference.loss('grpo'))
      for (const [parameter, gradient] of await learner.gradients()) {
        const expected = reference.floats(`grad.grpo.${parameter}`)
        const error = largestDifference(gradient, expected) / largestMagnitude(expected)
        t.true(error < 1e-4, `${parameter}: ${error}`)
      }
      const { gradNorm } = await learner.step()
      t.true(Math.abs(gradNorm / reference.floats('gradnorm.grpo')[0]! - 1) < 1e-4)
      for (const { name: parameter } of policy.parameters()) {
        assertStepped(t, await policy.readParameter(parameter), reference, parameter)
      }
    },
  )

  testCudaWithShared(`${name}: gradients of two passes add up`, async (t) => {
    const reference = new Reference(name)
    const { learner } = await open(t, name, 'f32')
    const pass = () => learner.accumulate(reference.batch('grpo'), reference.loss('grpo'))
    await pass()
    const once = await learner.gradients()
    await pass()
    for (const [parameter, gradient] of await learner.gradients()) {
      const twice = once.get(parameter)!.map((value) => 2 * value)
      const error = largestDifference(gradient, twice) / largestMagnitude(twice)
      t.true(error < 1e-5, `${parameter}: ${error}`)
    }
  })

  for (const dtype of ['f32', 'bf16'] as const) {
    testCudaWithShared(
      `${name}, ${dtype}: log-probs of the learner are those of generate and score`,
      async (t) => {
        const { policy } = await open(t, name, dtype)
        const learner = newLearner(policy)
        for (const [seed, schedule] of schedules.entries()) {
          schedule()
          const shape = { rows: 5, seed, vocabSize: policy.config.vocabSize, longestPrompt: 90, mostNew: 4 }
          const completions = await policy.generate(raggedBatch(shape), {
            temperature: 0.8,
            seed,
            ignoreEnd: true,
          })
          t.deepEqual(await inexactnesses(policy, learner, completions, 0.8), [])
        }
        learner.dispose()
      },
    )
  }

  testCudaWithShared(`${name}: a whole step of training is the CPU's within tolerance`, async (t) => {
    const onCpu = await wholeStep(await open(t, name, 'f32', 'cpu'))
    const onDevice = await wholeStep(await open(t, name, 'f32'))
    t.deepEqual(onDevice.tokens, onCpu.tokens)
    t.is(onDevice.statistics.mismatch, 0)
    for (const key of ['loss', 'policyLoss', 'kl', 'entropy', 'ratioMax'] as const) {
      t.true(Math.abs(onDevice.statistics[key] - onCpu.statistics[key]) < 1e-5, key)
    }
    t.true(Math.abs(onDevice.gradNorm / onCpu.gradNorm - 1) < 1e-4)
    t.true(onCpu.second.kl > 1e-5 && onCpu.second.ratioMax > 1.001)
    for (const key of ['loss', 'policyLoss', 'kl', 'entropy', 'ratioMax'] as const) {
      t.true(Math.abs(onDevice.second[key] - onCpu.second[key]) < 1e-5, `second ${key}`)
    }
    for (const [parameter, gradient] of onDevice.gradients) {
      const expected = onCpu.gradients.get(parameter)!
      const error = largestDifference(gradient, expected) / largestMagnitude(expected)
      t.true(error < 1e-4, `${parameter}: ${error}`)
    }
  })
}

/** Adam's first step divides by |g|: where that is next to nothing, its direction is noise. */
function assertStepped(t: ExecutionContext, weights: Float32Array, reference: Reference, parameter: string) {
  const expected = reference.floats(`adamw.${parameter}`)
  const gradient = reference.floats(`grad.grpo.${parameter}`)
  const least = 1e-3 * largestMagnitude(gradient)
  for (let i = 0; i < weights.length; i++) {
    const allowed = Math.abs(gradient[i]!) >= least ? 1e-6 : 2 * learningRate
    const difference = Math.abs(weights[i]! - expected[i]!)
    if (!(difference < allowed)) return t.fail(`${parameter}[${i}]: ${difference}`)
  }
  t.pass()
}

/** Two groups of four, a reward, the reference's log-probs, the clipped loss with KL, and the update. */
async function wholeStep({ policy, learner }: { policy: Policy; learner: Learner }) {
  await using frozen = await policy.clone()
  const prompts = [Int32Array.from({ length: 21 }, (_, i) => 7 * i + 3), Int32Array.of(5, 80, 3)]
  const requests = prompts.map((tokens) => ({ tokens, n: 4, maxNewTokens: 6, ignoreEnd: true }))
  const completions = await policy.generate(requests, { seed: 11, temperature })
  const rewards = completions.map(({ tokens }) => tokens.reduce((sum, token) => sum + (token % 7), 0))
  const advantages = rewards.map((reward, i) => {
    const group = rewards.slice(i - (i % 4), i - (i % 4) + 4)
    return reward - group.reduce((sum, each) => sum + each, 0) / 4
  })
  const tokens = completions.map(({ promptTokens, tokens }) => Int32Array.of(...promptTokens, ...tokens))
  const referenceLogProbs = (await frozen.score(tokens, { temperature })).map(({ logProbs }) => logProbs)
  const padded = completions.map(({ promptTokens, logProbs }) =>
    Float32Array.of(...new Float32Array(promptTokens.length - 1), ...logProbs),
  )
  const lossMask = completions.map(({ promptTokens, logProbs }) =>
    new Uint8Array(promptTokens.length - 1 + logProbs.length).fill(1, promptTokens.length - 1),
  )
  const batch = {
    tokens,
    lossMask,
    advantages: Float32Array.from(advantages),
    oldLogProbs: padded,
    referenceLogProbs,
  }
  const loss = { type: 'grpo', epsilon: 0.2, epsilonHigh: 0.2, beta: 0.05, temperature } as const
  const statistics = await learner.accumulate(batch, loss)
  const gradients = await learner.gradients()
  const { gradNorm } = await learner.step()
  // Once more on the same batch: ratios that are not 1, and a distance from the reference.
  const second = await learner.accumulate(batch, loss)
  return { tokens, statistics, gradients, gradNorm, second }
}
