import { mkdtemp, readdir, readFile, rename, rm, symlink } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { readJsonl } from '../../lib/logging/jsonl.ts'
import { nativePolicyOf } from '../../lib/policy/native-handle.ts'
import type { Policy } from '../../lib/policy/policy.ts'
import type { RewardFunction } from '../../lib/rewards/reward.ts'
import { SSRLTrainer, type SSRLTrainerOptions } from '../../lib/training/ssrl-trainer.ts'
import { type StepRecord, withoutTimes } from '../../lib/training/step-record.ts'
import { questions, shortTemplate, tinyPolicy } from '../helpers/tiny-policy.ts'

/** Rewards vary within groups and depend on the text alone. */
const lettersE: RewardFunction = (trajectories) =>
  trajectories.map(({ text }) => (text.split('e').length - 1) / (text.length + 1))

const settings = {
  promptTemplate: shortTemplate,
  promptsPerStep: 3,
  numGenerations: 4,
  maxCompletionLength: 12,
  learningRate: 1e-3,
  maxSteps: 4,
  beta: 0,
}

async function trainer(
  t: ExecutionContext,
  options: Partial<SSRLTrainerOptions> = {},
  dtype: 'f32' | 'bf16' = 'f32',
): Promise<SSRLTrainer> {
  const policy = options.policy ?? (await tinyPolicy({ dtype }))
  const made = new SSRLTrainer({ train: questions(10), rewards: lettersE, ...settings, ...options, policy })
  t.teardown(() => {
    made.dispose()
    policy.dispose()
  })
  return made
}

async function folder(t: ExecutionContext): Promise<string> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'ssrl-train-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  return directory
}

async function collect(trainer: SSRLTrainer): Promise<StepRecord[]> {
  const records: StepRecord[] = []
  for await (const record of trainer.train()) records.push(record)
  return records
}

async function weightsOf(policy: Policy): Promise<Map<string, Float32Array>> {
  const native = nativePolicyOf(policy)
  const weights = new Map<string, Float32Array>()
  for (const { name } of native.parameters()) weights.set(name, await native.readParameter(name))
  return weights
}

function largestDifference(a: Map<string, Float32Array>, b: Map<string, Float32Array>): number {
  let largest = 0
  for (const [name, values] of a) {
    const others = b.get(name)!
    for (const [index, value] of values.entries())
      largest = Math.max(largest, Math.abs(value - others[index]!))
  }
  return largest
}

for (const dtype of ['f32', 'bf16'] as const) {
  test(`what was sampled is what is trained: mismatch 0 and ratio 1 in every step (${dtype})`, async (t) => {
    const made = await trainer(t, {}, dtype)
    if (!made.policy.exact) return t.pass('this machine is not exact')
    for (const record of await collect(made)) {
      t.is(record.mismatch, 0)
      t.is(record.ratio.max, 1)
      t.is(record.clip.low + record.clip.high, 0)
    }
  })
}

test('a weight that is nudged between sampling and learning shows as mismatch', async (t) => {
  const policy = await tinyPolicy()
  const nudge: RewardFunction = async (trajectories, context) => {
    const native = nativePolicyOf(policy)
    const name = native.parameters().find((parameter) => parameter.name.includes('q_proj'))!.name
    const values = await native.readParameter(name)
    values[0]! += 0.01
    await native.writeParameter(name, values)
    return lettersE(trajectories, context)
  }
  const [record] = await collect(await trainer(t, { policy, rewards: nudge, maxSteps: 1 }))
  t.true(record!.mismatch > 0)
  t.not(record!.ratio.max, 1)
})

test('two passes over a batch move the ratio away from 1, and the mismatch stays that of the first', async (t) => {
  const [record] = await collect(await trainer(t, { numIterations: 2, maxSteps: 1, learningRate: 1e-2 }))
  t.is(record!.mismatch, 0)
  t.true(record!.ratio.max > 1)
})

for (const steps of [{ numIterations: 4 }, { numMiniBatches: 3 }]) {
  const name = Object.keys(steps)[0]!
  test(`${name} above 1 makes the ratio leave 1, and clipping acts on both sides`, async (t) => {
    const options = { ...steps, maxSteps: 1, learningRate: 2e-2, epsilon: 0.01, dualClip: null }
    const [clipped] = await collect(await trainer(t, options))
    t.is(clipped!.mismatch, 0)
    t.true(clipped!.ratio.max > 1.01)
    t.true(clipped!.clip.low > 0)
    t.true(clipped!.clip.high > 0)
    const [free] = await collect(await trainer(t, { ...options, epsilon: 0.999, epsilonHigh: 1e6 }))
    t.is(free!.clip.low + free!.clip.high, 0)
    t.not(free!.gradNorm, clipped!.gradNorm)
  })
}

const several = { numIterations: 3, maxSteps: 1, learningRate: 2e-2, dualClip: null }

test('GSPO clips whole trajectories: its ratio is the mean one, and far nearer to 1', async (t) => {
  const level = { importanceSamplingLevel: 'sequence', lossType: 'grpo' } as const
  const [whole] = await collect(await trainer(t, { ...several, ...level, epsilon: 3e-4, epsilonHigh: 4e-4 }))
  const [token] = await collect(await trainer(t, { ...several, lossType: 'grpo', epsilon: 3e-4 }))
  t.is(whole!.mismatch, 0)
  t.true(whole!.clip.low > 0 && whole!.clip.high > 0)
  t.true(whole!.ratio.max > 1 && whole!.ratio.max - 1 < (token!.ratio.max - 1) / 2)
})

test('KL-Cov holds tokens near where they were, and clips none', async (t) => {
  const { dualClip, ...open } = several
  const drift = async (klCovCoefficient: number) => {
    const [record] = await collect(await trainer(t, { ...open, klCovRatio: 0.5, klCovCoefficient }))
    t.is(record!.mismatch, 0)
    t.is(record!.clip.low + record!.clip.high, 0)
    return record!
  }
  const [weak, strong] = [await drift(1e-6), await drift(20)]
  t.true(strong.policyLoss > weak.policyLoss)
  t.not(strong.ratio.max, weak.ratio.max)
})

for (const critic of ['copy', 'shared'] as const) {
  test(`PPO: rewards rise (${critic})`, async (t) => {
    const run = { maxSteps: 24, promptsPerStep: 6, numGenerations: 8, learningRate: 1e-2 }
    const ppo = { estimator: 'gae', critic, criticLearningRate: 1e-2, valueClip: null } as const
    const records = await collect(await trainer(t, { ...run, ...ppo }))
    const mean = (part: StepRecord[]) => part.reduce((sum, { reward }) => sum + reward.mean, 0) / part.length
    t.true(mean(records.slice(-5)) > 1.5 * mean(records.slice(0, 5)))
    t.true(records.every(({ mismatch }) => mismatch === 0))
    t.is(records[0]!.critic!.explainedVariance, 0, 'all values begin as 0')
    t.true(records.at(-1)!.critic!.loss < records[0]!.critic!.loss)
  })

  test(`PPO: the critic comes to know which questions pay (${critic})`, async (t) => {
    const known: RewardFunction = (all) => all.map(({ question }) => Number(/[02468] born/.test(question)))
    const run = {
      promptsPerStep: 10,
      numGenerations: 2,
      maxCompletionLength: 4,
      maxSteps: 30,
      rewards: known,
    }
    const rates = { learningRate: 1e-2, criticLearningRate: 1e-2, valueClip: null }
    const own =
      critic === 'copy' ? { maxSteps: 30, criticWarmupSteps: 29 } : { maxSteps: 55, valueCoefficient: 1 }
    const records = await collect(await trainer(t, { ...run, ...rates, ...own, estimator: 'gae', critic }))
    t.true(records.slice(0, 3).every(({ critic }) => critic!.explainedVariance < 0.1))
    t.true(Math.max(...records.map(({ critic }) => critic!.explainedVariance)) > 0.5)
    t.true(Math.min(...records.map(({ critic }) => critic!.loss)) < 0.08)
  })

  test(`PPO: while the critic warms up the policy does not move (${critic})`, async (t) => {
    const ppo = { estimator: 'gae', critic, criticWarmupSteps: 2, criticLearningRate: 1e-2 } as const
    const made = await trainer(t, { ...ppo, maxSteps: 3, weightDecay: 0.1 })
    const before = await weightsOf(made.policy)
    const losses: number[] = []
    for await (const record of made.train()) {
      losses.push(record.critic!.loss)
      const moved = largestDifference(before, await weightsOf(made.policy))
      if (record.step <= 2) {
        t.is(moved, 0)
        t.is(record.gradNorm, 0)
        t.true(record.critic!.gradNorm > 0)
      } else t.true(moved > 0)
    }
    t.true(losses[1]! < losses[0]!)
  })
}

test('PPO: several optimizer steps make values leave those of sampling, and their clip acts', async (t) => {
  const ppo = { estimator: 'gae', valueClip: 0.01, criticLearningRate: 1e-2, numIterations: 4 } as const
  const [clipped] = await collect(await trainer(t, { ...ppo, maxSteps: 1 }))
  t.true(clipped!.critic!.clip > 0)
  const [free] = await collect(await trainer(t, { ...ppo, valueClip: 1e6, maxSteps: 1 }))
  t.is(free!.critic!.clip, 0)
})

test('PPO: a step that fails leaves policy and critic as they were, and can be tried again', async (t) => {
  const policy = await tinyPolicy()
  const good = await policy.readParameter('model.norm.weight')
  let broken = true
  // The critic has a copy of its own, so that the policy alone meets what is no number.
  const reward: RewardFunction = async (all, context) => {
    if (broken) await policy.writeParameter('model.norm.weight', good.with(0, Number.NaN))
    return lettersE(all, context)
  }
  const rewards = [{ name: 'lettersE', reward }]
  const ppo = { estimator: 'gae', criticLearningRate: 1e-2, maxSteps: 2 } as const
  const made = await trainer(t, { ...ppo, policy, rewards })
  await t.throwsAsync(collect(made), { code: 'ERR_NON_FINITE' })
  await policy.writeParameter('model.norm.weight', good)
  broken = false
  t.deepEqual(
    (await collect(made)).map(withoutTimes),
    (await collect(await trainer(t, ppo))).map(withoutTimes),
  )
})

test('PPO needs no group: one trajectory a question will do', async (t) => {
  const [record] = await collect(
    await trainer(t, { estimator: 'gae', numGenerations: 1, promptsPerStep: 6, maxSteps: 1 }),
  )
  t.true(record!.gradNorm > 0)
})

for (const estimator of ['rloo', 'reinforce_plus_plus', 'reinforce_plus_plus_baseline'] as const) {
  test(`rewards rise with the ${estimator} estimator`, async (t) => {
    const run = { maxSteps: 30, promptsPerStep: 6, numGenerations: 8, learningRate: 1e-2 }
    const records = await collect(await trainer(t, { ...run, estimator }))
    const mean = (part: StepRecord[]) => part.reduce((sum, { reward }) => sum + reward.mean, 0) / part.length
    t.true(mean(records.slice(-5)) > 1.8 * mean(records.slice(0, 5)))
    t.true(records.every(({ mismatch }) => mismatch === 0))
  })
}

test('dynamic sampling learns from as many questions as the step wants, and says when there are too few', async (t) => {
  const warnings: string[] = []
  let calls = 0
  // Of the first batch one question teaches, of the second all do.
  const reward: RewardFunction = (all) => {
    calls += 1
    return all.map(({ group }, index) => (calls === 1 && group > 0 ? 1 : index % 2))
  }
  const options = { rewards: reward, dynamicSampling: true, maxSteps: 1 }
  const [record] = await collect(await trainer(t, options))
  t.deepEqual(record!.sampling, { rounds: 2, groups: 5, kept: 3 })
  t.is(record!.trajectories, 20)
  t.is(record!.zeroVarianceGroups, 2)
  t.is(record!.epoch, 0.5)
  t.is(record!.mismatch, 0)
  const none = await trainer(t, {
    ...options,
    rewards: (all) => all.map(() => 1),
    maxGenerationBatches: 2,
    onWarning: (message) => warnings.push(message),
  })
  const before = await weightsOf(none.policy)
  const [empty] = await collect(none)
  t.deepEqual(empty!.sampling, { rounds: 2, groups: 6, kept: 0 })
  t.deepEqual(await weightsOf(none.policy), before)
  t.regex(warnings.join(), /step 1: the rewards of only 0 of 6 questions differ after 2 batches/)
})

test('KL as a reward: tokens far from the reference lose, and the loss has no term for it', async (t) => {
  const options = { beta: 0.5, klPlacement: 'reward', klEstimator: 'k1', learningRate: 5e-3 } as const
  const records = await collect(
    await trainer(t, { ...options, estimator: 'reinforce_plus_plus', maxSteps: 3 }),
  )
  t.is(records[0]!.kl, 0)
  t.not(records.at(-1)!.kl, 0)
  t.is(records.at(-1)!.loss, records.at(-1)!.policyLoss)
  const strong = await trainer(t, { ...options, beta: 100, estimator: 'rloo', maxSteps: 12 })
  const weak = await trainer(t, { ...options, beta: 1e-9, estimator: 'rloo', maxSteps: 12 })
  const drift = (made: StepRecord[]) => Math.max(...made.slice(-4).map(({ kl }) => Math.abs(kl)))
  t.true(drift(await collect(strong)) < drift(await collect(weak)))
})

test('the majority of a group is a label where there is none: TTRL needs no golden answers', async (t) => {
  const unlabelled = questions(10).map((question) => ({ ...question, goldenAnswers: [] }))
  const options = {
    answerReward: 'majorityVote',
    train: unlabelled,
    rewards: undefined,
    maxSteps: 1,
  } as const
  const [record] = await collect(await trainer(t, options))
  t.is(record!.exactMatch.mean, null)
  t.is(record!.labels!.agreement, null)
  t.is(record!.labels!.unanswered, 1, 'a policy of random weights answers nothing')
  t.deepEqual(Object.keys(record!.rewardParts), ['majorityVote', 'format'])
  const [labelled] = await collect(await trainer(t, { ...options, train: questions(10) }))
  t.is(labelled!.labels!.agreement, 0)
  t.is(labelled!.exactMatch.mean, 0)
  t.is((await collect(await trainer(t, { maxSteps: 1 })))[0]!.labels, undefined)
})

for (const lossType of ['dapo', 'bnpo', 'grpo', 'dr_grpo'] as const) {
  test(`how micro-batches are cut does not change the result: 1×12 equals 12×1 (${lossType})`, async (t) => {
    const options = { lossType, maxSteps: 2, beta: 0.05, weightDecay: 0, adamEpsilon: 1e-3 }
    const whole = await trainer(t, { ...options, microBatchTokens: 100_000 })
    const single = await trainer(t, { ...options, microBatchTokens: 1 })
    const [a, b] = [await collect(whole), await collect(single)]
    t.true(largestDifference(await weightsOf(whole.policy), await weightsOf(single.policy)) < 1e-6)
    for (const [index, record] of a.entries()) {
      t.true(Math.abs(record.loss - b[index]!.loss) < 1e-6)
      t.true(Math.abs(record.gradNorm - b[index]!.gradNorm) < 1e-6 * Math.max(1, record.gradNorm))
    }
  })
}

test('a collapse alarm warns with the step; by setting the run stops there, evaluated and saved', async (t) => {
  const outputDirectory = await folder(t)
  const warnings: string[] = []
  const watch = {
    alarmWindow: 2,
    // No policy is so unsure.
    alarmEntropyMin: 9,
    alarmEntropyMax: null,
    onWarning: (message: string) => warnings.push(message),
  }
  const told = await collect(await trainer(t, { ...watch, alarms: 'warn' }))
  t.deepEqual(
    told.map(({ alarms = [] }) => alarms),
    [[], ['entropyLow'], ['entropyLow'], ['entropyLow']],
  )
  t.is(warnings.length, 1)
  t.regex(warnings[0]!, /^step 2: .*entropy/)
  const options = { ...watch, alarms: 'stop', outputDirectory, evaluation: questions(2), keep: 1 } as const
  const made = await trainer(t, { ...options, evaluateEvery: 1 })
  const stopped = await collect(made)
  t.deepEqual(
    stopped.map(({ step, stopped = false, evaluation }) => [step, stopped, evaluation !== undefined]),
    [
      [1, false, true],
      [2, true, true],
    ],
  )
  const kept = await readdir(path.join(outputDirectory, 'checkpoints'))
  t.deepEqual(kept.toSorted(), ['best', `step-00000${made.best!.step}`, 'step-000002'].toSorted())
  t.is(made.best!.step, 1)
  await readFile(path.join(outputDirectory, 'policy', 'model.safetensors'))
  const resumed = await SSRLTrainer.resume(outputDirectory, { rewards: lettersE })
  const rest = await collect(resumed)
  t.deepEqual(
    rest.map(({ step, alarms, stopped }) => [step, alarms, stopped]),
    [
      [3, ['entropyLow'], undefined],
      [4, ['entropyLow'], undefined],
    ],
    'who goes on knows of the alarm that rings',
  )
  resumed.dispose()
  await resumed.policy.dispose()
  t.deepEqual(
    (await collect(await trainer(t, { onWarning: watch.onWarning, alarms: 'off' }))).flatMap(
      ({ alarms = [] }) => alarms,
    ),
    [],
  )
})

test('rewards rise where they can be earned', async (t) => {
  const made = await trainer(t, { maxSteps: 30, promptsPerStep: 6, numGenerations: 8, learningRate: 1e-2 })
  const records = await collect(made)
  const mean = (part: StepRecord[]) => part.reduce((sum, { reward }) => sum + reward.mean, 0) / part.length
  t.true(mean(records.slice(-5)) > 2 * mean(records.slice(0, 5)))
})

test('KL against the reference is 0 before the first update and grows after it', async (t) => {
  const records = await collect(await trainer(t, { beta: 0.01, learningRate: 5e-3 }))
  t.true(Math.abs(records[0]!.kl) < 1e-7)
  t.true(records.at(-1)!.kl > 1e-5)
})

test('equal rewards give no gradient, and the weights stay as they are', async (t) => {
  const made = await trainer(t, { rewards: (all) => all.map(() => 0.9), weightDecay: 0, maxSteps: 1 })
  const before = await weightsOf(made.policy)
  const [record] = await collect(made)
  t.is(record!.zeroVarianceGroups, 3)
  t.is(record!.gradNorm, 0)
  t.deepEqual(await weightsOf(made.policy), before)
})

test('a null reward takes its trajectory out of the loss; nothing but nulls is a step without an update', async (t) => {
  const some: RewardFunction = (all) => all.map((_, index) => (index % 4 === 0 ? null : index % 3))
  const [partly] = await collect(await trainer(t, { rewards: some, maxSteps: 1 }))
  t.is(partly!.nullRewards, 3)
  t.true(partly!.tokens.active < partly!.tokens.completion)
  const made = await trainer(t, { rewards: (all) => all.map(() => null), maxSteps: 1 })
  const before = await weightsOf(made.policy)
  const [none] = await collect(made)
  t.is(none!.tokens.active, 0)
  t.deepEqual(await weightsOf(made.policy), before)
})

test('a reward function that throws is ERR_REWARD, and the step can be tried again', async (t) => {
  let broken = true
  const reward: RewardFunction = (all, context) => {
    if (broken) throw new Error('no network')
    return lettersE(all, context)
  }
  const made = await trainer(t, { rewards: [{ name: 'lettersE', reward }] })
  await t.throwsAsync(collect(made), { code: 'ERR_REWARD', message: /no network/ })
  broken = false
  const again = (await collect(made)).map(withoutTimes)
  t.deepEqual(again, (await collect(await trainer(t))).map(withoutTimes))
})

test('a reward function that hangs is ERR_TIMEOUT', async (t) => {
  const made = await trainer(t, { rewards: () => new Promise(() => {}), rewardTimeout: 0.05 })
  await t.throwsAsync(collect(made), { code: 'ERR_TIMEOUT' })
})

test('leaving the loop stops after the step; training again goes on as if nothing had been', async (t) => {
  const whole = (await collect(await trainer(t))).map(withoutTimes)
  const made = await trainer(t)
  const parts: object[] = []
  for await (const record of made.train()) {
    parts.push(withoutTimes(record))
    if (record.step === 2) break
  }
  t.is(made.step, 2)
  parts.push(...(await collect(made)).map(withoutTimes))
  t.deepEqual(parts, whole)
})

test('an abort rejects with its reason, keeps the last whole step and can be gone on from', async (t) => {
  const whole = (await collect(await trainer(t))).map(withoutTimes)
  const made = await trainer(t)
  const controller = new AbortController()
  const parts: object[] = []
  const reason = new Error('enough')
  const error = await t.throwsAsync(async () => {
    for await (const record of made.train({ signal: controller.signal })) {
      parts.push(withoutTimes(record))
      if (record.step === 2) setImmediate(() => controller.abort(reason))
    }
  })
  t.is(error, reason)
  parts.push(...(await collect(made)).map(withoutTimes))
  t.deepEqual(parts, whole)
})

test('records, trajectories, checkpoints and the policy are written', async (t) => {
  const outputDirectory = await folder(t)
  const made = await trainer(t, { outputDirectory, evaluation: questions(2), saveEvery: 1, keep: 2 })
  const records = await collect(made)
  t.deepEqual(await readJsonl(path.join(outputDirectory, 'steps.jsonl')), records)
  const lines = await readJsonl<{ step: number; text: string; reward: number }>(
    path.join(outputDirectory, 'trajectories.jsonl'),
  )
  t.is(lines.length, 4 * 12)
  t.deepEqual(Object.keys(lines[0]!).slice(0, 5), ['step', 'id', 'question', 'golden_answers', 'response'])
  const config = JSON.parse(await readFile(path.join(outputDirectory, 'config.json'), 'utf8'))
  t.is(config.config.numGenerations, 4)
  t.is(config.promptTemplate.text, shortTemplate)
  await readFile(path.join(outputDirectory, 'policy', 'model.safetensors'))
})

test('a folder with the records of another run is refused', async (t) => {
  const outputDirectory = await folder(t)
  await collect(await trainer(t, { outputDirectory, maxSteps: 1 }))
  await t.throwsAsync(collect(await trainer(t, { outputDirectory, maxSteps: 1 })), {
    code: 'ERR_INVALID_CONFIG',
    message: /another run/,
  })
})

test('prompts that are too long are left out with a count', async (t) => {
  const warnings: string[] = []
  const train = [...questions(3), { ...questions(1)[0]!, question: `Where ${'and where '.repeat(40)}?` }]
  await collect(
    await trainer(t, {
      train,
      maxPromptLength: 30,
      maxSteps: 1,
      onWarning: (message) => warnings.push(message),
    }),
  )
  t.true(warnings.some((message) => message.startsWith('1 of 4 prompts have more than 30 tokens')))
})

test('an evaluation question among the training questions is told', async (t) => {
  const warnings: string[] = []
  const onWarning = (message: string) => warnings.push(message)
  await collect(await trainer(t, { evaluation: questions(1), maxSteps: 1, onWarning }))
  t.true(warnings.some((message) => /1 evaluation questions are training questions/.test(message)))
})

test('prompt and completion that cannot fit the context are refused', async (t) => {
  const made = await trainer(t, { maxCompletionLength: 300 })
  await t.throwsAsync(collect(made), { code: 'ERR_INVALID_CONFIG', message: /context of 256/ })
})

test('where the machine is not exact, a second forward pass gives the old log-probs, and a warning says so', async (t) => {
  const warnings: string[] = []
  const policy = await tinyPolicy()
  Object.defineProperty(policy, 'exact', { value: false })
  const nudge: RewardFunction = async (trajectories, context) => {
    const name = policy.parameters().find((parameter) => parameter.name.includes('q_proj'))!.name
    const values = await policy.readParameter(name)
    values[0]! += 0.01
    await policy.writeParameter(name, values)
    return lettersE(trajectories, context)
  }
  const onWarning = (message: string) => warnings.push(message)
  const [record] = await collect(await trainer(t, { policy, rewards: nudge, maxSteps: 1, onWarning }))
  t.regex(warnings.join(), /second forward pass/)
  t.is(record!.ratio.max, 1, 'the ratio is that of the weights that learn')
  t.true(record!.mismatch > 0, 'and the mismatch still that of the sampler')
})

test('a loss that is not finite is ERR_NON_FINITE, the step is left undone and can be tried again', async (t) => {
  const policy = await tinyPolicy()
  const name = 'model.norm.weight'
  const good = await policy.readParameter(name)
  let broken = true
  const reward: RewardFunction = async (all, context) => {
    if (broken) await policy.writeParameter(name, good.with(0, Number.NaN))
    return lettersE(all, context)
  }
  const made = await trainer(t, { policy, rewards: [{ name: 'lettersE', reward }] })
  await t.throwsAsync(collect(made), { code: 'ERR_NON_FINITE' })
  t.is(made.step, 0)
  await policy.writeParameter(name, good)
  broken = false
  t.deepEqual((await collect(made)).map(withoutTimes), (await collect(await trainer(t))).map(withoutTimes))
})

test('a checkpoint that cannot be written is ERR_CHECKPOINT, and the trainer goes on', async (t) => {
  const made = await trainer(t, { maxSteps: 2 })
  for await (const _ of made.train()) break
  await t.throwsAsync(made.save('/dev/full/checkpoint'), { code: 'ERR_CHECKPOINT' })
  await t.throwsAsync(made.save(), { code: 'ERR_INVALID_ARG', message: /save\(directory\)/ })
  await collect(made)
  t.is(made.step, 2)
})

test('records that cannot be written are ERR_IO, and nothing is learnt twice', async (t) => {
  const whole = (await collect(await trainer(t))).map(withoutTimes)
  const outputDirectory = await folder(t)
  const made = await trainer(t, { outputDirectory })
  const steps = path.join(outputDirectory, 'steps.jsonl')
  const seen: object[] = []
  await t.throwsAsync(
    async () => {
      for await (const record of made.train()) {
        seen.push(withoutTimes(record))
        if (record.step === 2) {
          await rename(steps, `${steps}.kept`)
          await symlink('/dev/full', steps)
        }
      }
    },
    { code: 'ERR_IO', message: /no space left/i },
  )
  await rename(`${steps}.kept`, steps)
  seen.push(...(await collect(made)).map(withoutTimes))
  t.deepEqual(seen, whole)
  t.deepEqual((await readJsonl<StepRecord>(steps)).map(withoutTimes), whole)
  t.is((await readJsonl(path.join(outputDirectory, 'trajectories.jsonl'))).length, 4 * 12)
})

test('what plain JavaScript may pass instead of a policy or questions is refused', async (t) => {
  const policy = await tinyPolicy()
  t.teardown(() => policy.dispose())
  const make = (options: object) => () =>
    new SSRLTrainer({ policy, train: questions(1), ...options } as never)
  t.throws(make({ policy: {} }), { code: 'ERR_INVALID_ARG', message: /Expected a Policy/ })
  t.throws(make({ train: [] }), { code: 'ERR_INVALID_ARG', message: /at least one question for train/ })
  t.throws(make({ train: 'questions.jsonl' }), { code: 'ERR_INVALID_ARG' })
  t.throws(make({ train: [{ question: 'x' }] }), { code: 'ERR_INVALID_ARG', message: /train\[0\]/ })
  const unlabelled = questions(1).map((question) => ({ ...question, goldenAnswers: [] }))
  t.throws(make({ train: unlabelled }), { code: 'ERR_INVALID_CONFIG', message: /golden answers but none/ })
  t.throws(make({ rewards: 3 }), { code: 'ERR_INVALID_CONFIG' })
  t.throws(make({ beta: 'x' }), { code: 'ERR_INVALID_CONFIG' })
})
