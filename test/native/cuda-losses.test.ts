/** The losses of docs/method.md on a CUDA device, emulated unless there is one: against the CPU. */
import { Learner, type LossOptions, Policy } from '../../lib/index.ts'
import { testCudaWithShared } from '../helpers/emulated-process.ts'
import { fixtureNames, largestDifference, largestMagnitude, Reference } from '../helpers/reference.ts'

const tokens = [14, 31, 2, 20].map((length, s) =>
  Int32Array.from({ length }, (_, t) => (s * 29 + t * 13 + ((t * t) % 5)) % 90),
)
const perToken = (make: (s: number, t: number) => number) =>
  tokens.map(({ length }, s) => Float32Array.from({ length: length - 1 }, (_, t) => make(s, t)))
const lossMask = perToken((s, t) => Number(t > 2 && (s + t) % 4 !== 0)).map((mask) => Uint8Array.from(mask))

const losses: Record<string, LossOptions> = {
  'one ratio a sequence': { type: 'grpo', importanceSamplingLevel: 'sequence', epsilon: 0.02 },
  'k2, and tokens held near where they were': { type: 'dapo', beta: 0.1, klEstimator: 'k2' },
  'policy and values on one trunk': { type: 'dapo', valueClip: 0.3, valueCoefficient: 0.5 },
  'values alone': { type: 'value' },
}

async function run(name: string, loss: LossOptions, device: 'cpu' | 'cuda') {
  await using policy = await Policy.load(new Reference(name).folder, { dtype: 'f32', device })
  using learner = new Learner(policy, { learningRate: 1e-3, weightDecay: 0, valueHead: true })
  const scores = await policy.score(tokens)
  const near = (offset: (s: number, i: number) => number) =>
    scores.map(({ logProbs }, s) => logProbs.map((value, i) => value + offset(s, i)))
  const batch = {
    tokens,
    lossMask,
    advantages: Float32Array.of(1, -1, 0.5, -0.5),
    oldLogProbs: near((s, i) => 0.1 * Math.sin(3 * s + i)),
    referenceLogProbs: near((s, i) => 0.5 * Math.cos(s + 2 * i)),
    ...(loss.beta ? { driftWeights: perToken((s, i) => Number((s + i) % 3 === 0)) } : {}),
    ...(loss.valueClip || loss.type === 'value'
      ? { returns: perToken((s, i) => Math.sin(s + i)), oldValues: perToken((s, i) => Math.cos(s * i)) }
      : {}),
  }
  // The first step gives the value head weights other than 0.
  await learner.accumulate(batch, loss)
  await learner.step()
  const statistics = await learner.accumulate(batch, loss)
  return { statistics, gradients: await learner.gradients(), values: await learner.values(tokens) }
}

for (const [title, loss] of Object.entries(losses)) {
  testCudaWithShared(
    `${title}: statistics, gradients and values are the CPU's within tolerance`,
    async (t) => {
      const name = fixtureNames[0]!
      const [device, cpu] = [await run(name, loss, 'cuda'), await run(name, loss, 'cpu')]
      for (const [key, value] of Object.entries(cpu.statistics)) {
        const got = device.statistics[key as keyof typeof cpu.statistics]
        t.true(Math.abs(got - value) < 1e-4 * Math.max(1, Math.abs(value)), `${key}: ${got} against ${value}`)
      }
      for (const [parameter, gradient] of device.gradients) {
        const expected = cpu.gradients.get(parameter)!
        const error = largestDifference(gradient, expected) / Math.max(largestMagnitude(expected), 1e-9)
        t.true(error < 2e-3, `${parameter}: ${error}`)
      }
      for (const [s, values] of device.values.entries()) {
        t.true(largestDifference(values, cpu.values[s]!) < 1e-4)
      }
    },
  )
}
