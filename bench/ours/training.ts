import type { Question } from '../../lib/data/questions.ts'
import { loadNative } from '../../lib/native.ts'
import type { Policy } from '../../lib/policy/policy.ts'
import { SSRLTrainer } from '../../lib/training/ssrl-trainer.ts'
import type { Result, TrainingWork } from '../job.ts'
import { quantile } from '../statistics.ts'

type Partial = Omit<Result, 'peak' | 'version'>

/** The real trainer, on the policy's own answers to real questions. */
function trainerOf(policy: Policy, work: TrainingWork, steps: number): SSRLTrainer {
  const train = work.questions.map(
    ({ question, answers }, i): Question => ({ id: String(i), question, goldenAnswers: answers, fields: {} }),
  )
  return new SSRLTrainer({
    policy,
    train,
    maxSteps: steps,
    promptsPerStep: work.promptsPerStep,
    numGenerations: work.n,
    maxCompletionLength: work.newTokens,
    learningRate: 1e-9,
    promptTemplate: 'Question: {question}\nAnswer:',
  })
}

/** Milliseconds that a 10 ms timer of the main thread came too late, at worst, one value a step. */
export async function loopLag(policy: Policy, work: TrainingWork): Promise<Partial> {
  using trainer = trainerOf(policy, work, work.steps + 1)
  const lateness: number[] = []
  let last = performance.now()
  let worst = 0
  const timer = setInterval(() => {
    const now = performance.now()
    worst = Math.max(worst, now - last - 10)
    last = now
  }, 10)
  for await (const { step } of trainer.train()) {
    if (step > 1) lateness.push(worst)
    worst = 0
  }
  clearInterval(timer)
  return { values: lateness }
}

/**
 * Percent of a step's time in which the main thread was not idle, one value a step. Part of it runs beside native work,
 * so it bounds TypeScript's share from above.
 */
export async function typescriptShare(policy: Policy, work: TrainingWork): Promise<Partial> {
  using trainer = trainerOf(policy, work, work.steps + 1)
  const shares: number[] = []
  let before = performance.eventLoopUtilization()
  for await (const { step } of trainer.train()) {
    const { utilization } = performance.eventLoopUtilization(before)
    if (step > 1) shares.push(100 * utilization)
    before = performance.eventLoopUtilization()
  }
  return { values: shares }
}

/**
 * By how many percent resident memory is larger at the end than after a first fifth of the steps: medians of a tenth of
 * the steps, garbage collected before each reading.
 */
export async function memoryGrowth(policy: Policy, work: TrainingWork): Promise<Partial> {
  using trainer = trainerOf(policy, work, work.steps)
  const resident: number[] = []
  const engine: number[] = []
  for await (const _ of trainer.train()) {
    globalThis.gc?.()
    resident.push(process.memoryUsage.rss())
    engine.push(loadNative().environment().memoryHeld)
  }
  const window = Math.max(1, Math.floor(work.steps / 10))
  const start = Math.floor(work.steps / 5)
  const growth = (values: readonly number[]) => {
    const early = quantile(values.slice(start, start + window), 0.5)
    return 100 * (quantile(values.slice(-window), 0.5) / early - 1)
  }
  const mebibytes = Math.round(resident.at(-1)! / 2 ** 20)
  return {
    values: [growth(resident)],
    note: `resident ${mebibytes} MiB at the end; engine's own ${growth(engine).toFixed(2)} %`,
  }
}
