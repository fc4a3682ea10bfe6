import { appendFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { readJsonl } from '../../lib/logging/jsonl.ts'
import { nativePolicyOf } from '../../lib/policy/native-handle.ts'
import type { RewardFunction } from '../../lib/rewards/reward.ts'
import { SSRLTrainer, type SSRLTrainerOptions } from '../../lib/training/ssrl-trainer.ts'
import { type StepRecord, withoutTimes } from '../../lib/training/step-record.ts'
import { questions, shortTemplate, tinyPolicy } from '../helpers/tiny-policy.ts'

function lettersE(trajectories: Parameters<RewardFunction>[0]): number[] {
  return trajectories.map(({ text }) => (text.split('e').length - 1) / (text.length + 1))
}

const settings = {
  promptTemplate: shortTemplate,
  promptsPerStep: 3,
  numGenerations: 4,
  maxCompletionLength: 12,
  learningRate: 1e-3,
  maxSteps: 6,
  beta: 0.01,
  numIterations: 2,
  schedule: 'cosine',
  warmupSteps: 2,
  evaluateEvery: 2,
  saveEvery: 1,
  keep: 10,
} as const

type Options = Partial<SSRLTrainerOptions> & { dtype?: 'f32' | 'bf16' }

async function startRun(t: ExecutionContext, { dtype, ...options }: Options = {}) {
  const outputDirectory = await mkdtemp(path.join(os.tmpdir(), 'ssrl-resume-'))
  const policy = await tinyPolicy({ dtype })
  const trainer = new SSRLTrainer({
    train: questions(7),
    evaluation: questions(9).slice(7),
    rewards: lettersE,
    outputDirectory,
    ...settings,
    ...options,
    policy,
  })
  t.teardown(() => rm(outputDirectory, { recursive: true, force: true }))
  t.teardown(() => free(trainer))
  return { trainer, outputDirectory }
}

function free(trainer: SSRLTrainer): void {
  trainer.dispose()
  trainer.policy.dispose()
}

async function finish(trainer: SSRLTrainer): Promise<StepRecord[]> {
  const records: StepRecord[] = []
  for await (const record of trainer.train()) records.push(record)
  return records
}

async function weightsOf(trainer: SSRLTrainer): Promise<Float32Array[]> {
  const native = nativePolicyOf(trainer.policy)
  return Promise.all(native.parameters().map(({ name }) => native.readParameter(name)))
}

for (const dtype of ['f32', 'bf16'] as const) {
  test(`a run that is resumed after any step has the records and weights of one that never stopped (${dtype})`, async (t) => {
    const whole = await startRun(t, { dtype })
    const records = (await finish(whole.trainer)).map(withoutTimes)
    const weights = await weightsOf(whole.trainer)
    for (let step = 1; step < settings.maxSteps; step++) {
      const checkpoint = path.join(whole.outputDirectory, 'checkpoints', `step-00000${step}`)
      const resumed = await SSRLTrainer.resume(checkpoint, {
        rewards: lettersE,
        outputDirectory: path.join(whole.outputDirectory, `again-${step}`),
      })
      t.is(resumed.step, step)
      t.deepEqual((await finish(resumed)).map(withoutTimes), records.slice(step))
      t.deepEqual(await weightsOf(resumed), weights)
      t.deepEqual(resumed.best, whole.trainer.best)
      free(resumed)
    }
  })
}

for (const critic of ['copy', 'shared'] as const) {
  test(`a critic goes on as it was, its optimizer too (${critic})`, async (t) => {
    const ppo = {
      estimator: 'gae',
      critic,
      criticLearningRate: 1e-2,
      criticWarmupSteps: 1,
      maxSteps: 3,
    } as const
    const whole = await startRun(t, ppo)
    const records = (await finish(whole.trainer)).map(withoutTimes)
    const weights = await weightsOf(whole.trainer)
    for (const step of [1, 2]) {
      const checkpoint = path.join(whole.outputDirectory, 'checkpoints', `step-00000${step}`)
      const resumed = await SSRLTrainer.resume(checkpoint, {
        rewards: lettersE,
        outputDirectory: path.join(whole.outputDirectory, `again-${step}`),
      })
      t.deepEqual((await finish(resumed)).map(withoutTimes), records.slice(step))
      t.deepEqual(await weightsOf(resumed), weights)
      free(resumed)
    }
  })
}

test('a run that refills its batches and refines them goes on with the same questions', async (t) => {
  const settings = { dynamicSampling: true, numMiniBatches: 2, overlongBuffer: 6, maxSteps: 3 } as const
  // Some groups are equal, so that the next question depends on what came before.
  const rewards: RewardFunction = (all) =>
    all.map(({ group, text }) => (group % 2 === 0 ? 1 : (text.split('e').length - 1) / (text.length + 1)))
  const whole = await startRun(t, { ...settings, rewards: [{ name: 'some', reward: rewards }] })
  const records = (await finish(whole.trainer)).map(withoutTimes)
  t.true((records[0] as StepRecord).sampling.rounds > 1)
  const checkpoint = path.join(whole.outputDirectory, 'checkpoints', 'step-000001')
  const resumed = await SSRLTrainer.resume(checkpoint, {
    rewards: [{ name: 'some', reward: rewards }],
    outputDirectory: path.join(whole.outputDirectory, 'again'),
  })
  t.deepEqual((await finish(resumed)).map(withoutTimes), records.slice(1))
  free(resumed)
})

test('resuming a run folder goes on from its newest checkpoint, and its files read as if it had never stopped', async (t) => {
  const whole = await startRun(t)
  const records = (await finish(whole.trainer)).map(withoutTimes)
  const { trainer, outputDirectory } = await startRun(t)
  for await (const record of trainer.train()) if (record.step === 3) break
  // What a crash in the middle of the next step may leave.
  const steps = path.join(outputDirectory, 'steps.jsonl')
  await appendFile(steps, '{"step":4,"reward":{"mean":9}}\n{"st')
  const resumed = await SSRLTrainer.resume(outputDirectory, { rewards: lettersE })
  await finish(resumed)
  t.deepEqual((await readJsonl<StepRecord>(steps)).map(withoutTimes), records)
  const trajectories = (directory: string) => readFile(path.join(directory, 'trajectories.jsonl'), 'utf8')
  t.is(await trajectories(outputDirectory), await trajectories(whole.outputDirectory))
  free(resumed)
})

test('an abort in the middle of an evaluation loses nothing: the resumed run evaluates that step first', async (t) => {
  const whole = (await finish((await startRun(t)).trainer)).map(withoutTimes)
  const { trainer, outputDirectory } = await startRun(t)
  const controller = new AbortController()
  const seen: object[] = []
  await t.throwsAsync(async () => {
    for await (const record of trainer.train({ signal: controller.signal })) {
      seen.push(withoutTimes(record))
      // The next step learns, and its evaluation meets the abort.
      if (record.step === 1) abortWhenStepped(trainer, controller)
    }
  })
  const saved = await trainer.save()
  const resumed = await SSRLTrainer.resume(saved, { rewards: lettersE })
  seen.push(...(await finish(resumed)).map(withoutTimes))
  t.deepEqual(seen, whole)
  t.is((await readJsonl(path.join(outputDirectory, 'steps.jsonl'))).length, settings.maxSteps)
  free(resumed)
})

function abortWhenStepped(trainer: SSRLTrainer, controller: AbortController): void {
  const watch = setInterval(() => {
    if (trainer.step < 2) return
    clearInterval(watch)
    controller.abort(new Error('stop'))
  }, 0)
}

test('another configuration is refused with each setting that differs', async (t) => {
  const { trainer } = await startRun(t, { maxSteps: 2 })
  await finish(trainer)
  const saved = await trainer.save()
  const resume = (options: object) => SSRLTrainer.resume(saved, { rewards: lettersE, ...options })
  await t.throwsAsync(resume({ learningRate: 1, numGenerations: 8 }), {
    code: 'ERR_CHECKPOINT',
    message: /learningRate \(checkpoint: 0.001, now: 1\).*numGenerations \(checkpoint: 4, now: 8\)/,
  })
  await t.throwsAsync(resume({ train: questions(3) }), {
    code: 'ERR_CHECKPOINT',
    message: /questions of train/,
  })
  await t.throwsAsync(SSRLTrainer.resume(saved), { code: 'ERR_CHECKPOINT', message: /rewards/ })
  const repeated = await resume({ learningRate: 1e-3, train: questions(7), keep: 1 })
  free(repeated)
})

test('a damaged checkpoint is refused, and an older one can be taken', async (t) => {
  const { trainer, outputDirectory } = await startRun(t, { maxSteps: 2 })
  await finish(trainer)
  const checkpoints = path.join(outputDirectory, 'checkpoints')
  await writeFile(path.join(checkpoints, 'step-000002', 'optimizer.safetensors'), 'x')
  await t.throwsAsync(SSRLTrainer.resume(outputDirectory, { rewards: lettersE }), {
    code: 'ERR_CHECKPOINT',
    message: /optimizer.safetensors has 1 bytes/,
  })
  const older = await SSRLTrainer.resume(path.join(checkpoints, 'step-000001'), { rewards: lettersE })
  t.is(older.step, 1)
  free(older)
})

test('the machine is recorded, and another one is told', async (t) => {
  const { trainer } = await startRun(t, { maxSteps: 2 })
  await finish(trainer)
  const saved = await trainer.save()
  const file = path.join(saved, 'state.json')
  const manifest = JSON.parse(await readFile(file, 'utf8'))
  manifest.state.machine.cpu = 'Another CPU'
  await writeFile(file, JSON.stringify(manifest))
  const warnings: string[] = []
  const onWarning = (message: string) => warnings.push(message)
  const threads = trainer.policy.threads + 1
  free(await SSRLTrainer.resume(saved, { rewards: lettersE, onWarning, threads }))
  t.regex(warnings.join(), /not bit for bit.*checkpoint: Another CPU.*threads \(checkpoint: \d+, here: \d+\)/)
})

test('the best checkpoint is kept beside the last ones', async (t) => {
  const { trainer, outputDirectory } = await startRun(t, { keep: 1 })
  await finish(trainer)
  const best = `step-00000${trainer.best!.step}`
  const kept = await readdir(path.join(outputDirectory, 'checkpoints'))
  t.deepEqual(kept.toSorted(), [...new Set(['best', best, 'step-000006'])].toSorted())
})
