import test from 'ava'
import { createTrajectory, type Trajectory } from '../../lib/rollout/trajectory.ts'
import { type StepSource, sampleStep } from '../../lib/training/sampling.ts'

const settings = {
  promptsPerStep: 2,
  dynamicSampling: true,
  maxGenerationBatches: 3,
  overlongBuffer: null,
  maxCompletionLength: 8,
}

function trajectory(group: number, length = 2): Trajectory {
  const values = new Float32Array(length)
  return createTrajectory({
    questionId: String(group),
    question: '',
    goldenAnswers: [],
    group,
    promptTokens: Int32Array.of(1),
    completionTokens: new Int32Array(length),
    pieces: Array.from(values, () => 'x'),
    logProbs: values,
    entropies: values,
    finishReason: 'stop',
  })
}

/** Question g has two trajectories with the rewards `rewardsOf[g]`. */
function source(rewardsOf: (number | null)[][], lengths = [2, 2]) {
  const asked: { count: number; round: number; firstGroup: number }[] = []
  const made: StepSource = {
    questions: rewardsOf.length,
    async rollOut(next) {
      asked.push(next)
      const groups = Array.from({ length: next.count }, (_, i) => next.firstGroup + i)
      return groups.flatMap((group) => lengths.map((length) => trajectory(group, length)))
    },
    async score(trajectories) {
      const total = trajectories.map(({ group }, index) => rewardsOf[group]![index % 2]!)
      return { total, parts: { own: total } }
    },
  }
  return { source: made, asked }
}

test('without dynamic sampling there is one batch, and every group is learnt from', async (t) => {
  const { source: from, asked } = source([
    [1, 1],
    [0, 1],
  ])
  const step = await sampleStep(from, { ...settings, dynamicSampling: false })
  t.deepEqual(asked, [{ count: 2, round: 0, firstGroup: 0 }])
  t.deepEqual(step.learnable, [1, 1, 0, 1])
  t.deepEqual(step.sampling, { rounds: 1, groups: 2, kept: 2 })
})

test('groups of equal rewards are dropped, and as many new questions are sampled until the batch is full', async (t) => {
  const { source: from, asked } = source([
    [1, 1],
    [0, 1],
    [0, 0],
    [0.5, 1],
    [1, 0],
  ])
  const step = await sampleStep(from, settings)
  t.deepEqual(asked, [
    { count: 2, round: 0, firstGroup: 0 },
    { count: 1, round: 1, firstGroup: 2 },
    { count: 1, round: 2, firstGroup: 3 },
  ])
  t.deepEqual(step.rewards, [1, 1, 0, 1, 0, 0, 0.5, 1])
  t.deepEqual(step.learnable, [null, null, 0, 1, null, null, 0.5, 1])
  t.deepEqual(step.parts.own, step.rewards)
  t.deepEqual(step.sampling, { rounds: 3, groups: 4, kept: 2 })
})

test('after maxGenerationBatches batches the step has what there is', async (t) => {
  const { source: from } = source(Array.from({ length: 9 }, () => [1, 1]))
  const { sampling, learnable } = await sampleStep(from, settings)
  t.deepEqual(sampling, { rounds: 3, groups: 6, kept: 0 })
  t.true(learnable.every((reward) => reward === null))
})

test('no question is sampled twice for one step: it ends where the questions do', async (t) => {
  const { source: from, asked } = source([
    [1, 1],
    [1, 1],
    [0, 1],
  ])
  const { sampling } = await sampleStep(from, { ...settings, maxGenerationBatches: 9 })
  t.deepEqual(
    asked.map(({ count }) => count),
    [2, 1],
  )
  t.deepEqual(sampling, { rounds: 2, groups: 3, kept: 1 })
})

test('a null reward is no difference', async (t) => {
  const { source: from } = source([
    [null, 1],
    [null, null],
    [0, 1],
    [1, 0],
  ])
  const { learnable } = await sampleStep(from, settings)
  t.deepEqual(learnable, [null, null, null, null, 0, 1, 1, 0])
})

test('the overlong penalty is added to rewards, and does not save a group of equal rewards', async (t) => {
  const { source: from } = source(
    [
      [0, 0],
      [0, 1],
      [1, 0],
    ],
    [8, 6],
  )
  const { rewards, learnable, parts } = await sampleStep(from, { ...settings, overlongBuffer: 4 })
  t.deepEqual(parts.overlong, [-1, -0.5, -1, -0.5, -1, -0.5])
  t.deepEqual(rewards, [-1, -0.5, -1, 0.5, 0, -0.5])
  t.deepEqual(learnable, [null, null, -1, 0.5, 0, -0.5])
})
