/**
 * The main job from end to end: measure a policy, train it to search its own memory, measure it again, save it.
 * Runs on the embedded small world, or on the user's own policy and questions.
 */
import path from 'node:path'
import type { Question } from '../data/questions.ts'
import { SsrlError } from '../errors.ts'
import type { Policy } from '../policy/policy.ts'
import type { PromptTemplate } from '../rollout/prompts.ts'
import type { PartialConfig } from '../training/config-parse.ts'
import { SSRLTrainer } from '../training/ssrl-trainer.ts'
import type { StepRecord } from '../training/step-record.ts'
import { worldPromptTemplate } from './demonstrations.ts'
import { type Measurement, measure } from './measure.ts'
import { createWorldPolicy, type PretrainOptions, pretrain } from './pretrain.ts'
import { createWorld, type World, type WorldQuestion } from './world.ts'

/** What the main job runs on. */
export interface MainJob {
  policy: Policy
  train: readonly Question[]
  heldOut: readonly Question[]
  promptTemplate: PromptTemplate
  settings: PartialConfig
}

export interface MainJobOptions {
  /** Folder of the run; the policy is saved in its sub-folder `policy`. */
  output: string
  seed: number
  /** How many held-out questions are sampled, and how often each. */
  sampledQuestions?: number
  samples?: number
  signal?: AbortSignal
  onPhase?: (phase: 'before' | 'train' | 'after' | 'save') => void
  onStep?: (record: StepRecord, steps: number) => void
  onWarning?: (message: string) => void
}

export interface MainJobReport {
  before: Measurement
  after: Measurement
  records: StepRecord[]
  /** Where the trained policy was saved. */
  saved: string
}

/** How many held-out questions are sampled unless told otherwise; all are answered greedily. */
export const sampledQuestions = 64

/** Settings of SSRL on the small world; see docs/runs/quickstart.md for what they give. */
export const worldSettings = {
  maxSteps: 90,
  promptsPerStep: 32,
  numGenerations: 8,
  maxCompletionLength: 112,
  temperature: 1,
  learningRate: 3e-4,
  adamBeta2: 0.99,
  weightDecay: 0,
  warmupRatio: 0.06,
  schedule: 'linear',
  scheduleFloor: 0.1,
  beta: 0,
} satisfies PartialConfig

/** Settings for the user's own policy: short enough to be watched, long enough to show a change. */
export const ownSettings = {
  maxSteps: 20,
  promptsPerStep: 8,
  numGenerations: 8,
  maxCompletionLength: 192,
  learningRate: 2e-6,
  warmupRatio: 0.1,
} satisfies PartialConfig

export const worldTemplate: PromptTemplate = { name: 'small world', text: worldPromptTemplate }

/** A world's questions as the trainer wants them. */
export function worldQuestions(questions: readonly WorldQuestion[]): Question[] {
  return questions.map(({ id, question, golden_answers }) => ({
    id,
    question,
    goldenAnswers: golden_answers,
    fields: { id, question, golden_answers },
  }))
}

/** Draws the world of a seed and pretrains its policy. The caller disposes of the policy. */
export async function prepareWorld(
  seed: number,
  options: Omit<PretrainOptions, 'seed'> = {},
): Promise<MainJob & { world: World }> {
  const world = createWorld(seed)
  const policy = await createWorldPolicy(seed)
  try {
    await pretrain(policy, world, { seed, ...options })
  } catch (error) {
    policy.dispose()
    throw error
  }
  return {
    world,
    policy,
    train: worldQuestions(world.train),
    heldOut: worldQuestions(world.heldOut),
    promptTemplate: worldTemplate,
    settings: worldSettings,
  }
}

/** Measures, trains, measures again and saves. */
export async function runMainJob(job: MainJob, options: MainJobOptions): Promise<MainJobReport> {
  if (job.heldOut.length === 0 || job.train.length === 0) {
    throw new SsrlError(
      'ERR_DATASET',
      'Expected questions to train on and held-out questions, but one is empty',
    )
  }
  const { policy, settings, promptTemplate } = job
  const { output, seed, signal } = options
  const measurement = () =>
    measure(policy, job.heldOut, {
      promptTemplate,
      maxNewTokens: settings.maxCompletionLength!,
      sampledQuestions: options.sampledQuestions ?? sampledQuestions,
      samples: options.samples ?? 16,
      seed,
      signal,
    })
  options.onPhase?.('before')
  const before = await measurement()
  options.onPhase?.('train')
  const records = await train(job, options)
  options.onPhase?.('after')
  const after = await measurement()
  options.onPhase?.('save')
  const saved = path.join(output, 'policy')
  await policy.save(saved)
  return { before, after, records, saved }
}

async function train(job: MainJob, options: MainJobOptions): Promise<StepRecord[]> {
  const { policy, settings, promptTemplate } = job
  const trainer = new SSRLTrainer({
    policy,
    train: job.train,
    ...settings,
    promptTemplate: promptTemplate.text,
    seed: options.seed,
    outputDirectory: options.output,
    onWarning: options.onWarning,
  })
  const records: StepRecord[] = []
  for await (const record of trainer.train({ signal: options.signal })) {
    records.push(record)
    options.onStep?.(record, settings.maxSteps!)
  }
  return records
}

/** The held-out question whose greedy completions show the change best: wrong before, right after, with a search. */
export function mostTelling(before: Measurement, after: Measurement): number {
  const value = (index: number) => {
    const [then, now] = [before.greedy[index]!, after.greedy[index]!]
    const searches = now.text.split('<search>').length - 1
    return (now.right ? 4 : 0) + (then.right ? 0 : 2) + Math.min(searches, 2) / 2
  }
  return after.greedy.reduce((best, _, index) => (value(index) > value(best) ? index : best), 0)
}
