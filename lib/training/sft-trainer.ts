/** Supervised fine-tuning: the mean negative log-likelihood of the trained tokens, over the whole optimizer step. */
import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import type { Example } from '../data/examples.ts'
import { SsrlError } from '../errors.ts'
import { readJsonl } from '../logging/jsonl.ts'
import type { Policy } from '../policy/policy.ts'
import { tokenizerOf } from '../rollout/encode-question.ts'
import type { PromptTemplate } from '../rollout/prompts.ts'
import type { Config } from './config.ts'
import { type PartialConfig, parseConfig } from './config-parse.ts'
import { DataOrder } from './data-order.ts'
import { Learner } from './learner.ts'
import { memoryNow } from './machine.ts'
import { microBatches } from './micro-batches.ts'
import { loadCheckpoint, type ResumeOptions, refuseDifferences } from './resume.ts'
import { learningRateAt } from './schedule.ts'
import { encodeExamples, type SftSequence, takeBatch } from './sft-data.ts'
import { Clock, learnerOptions, resolveTemplate } from './trainer-setup.ts'
import type { TrainerState } from './trainer-state.ts'
import { TrainingLoop } from './training-loop.ts'

/** Of the evaluation examples: mean negative log-likelihood of their trained tokens, in nats, and its exponential. */
export interface SFTScores {
  loss: number
  perplexity: number
  sequences: number
  tokens: number
}

/** What is written about every optimizer step of supervised fine-tuning. */
export interface SFTStepRecord {
  step: number
  epoch: number
  learningRate: number
  /** Mean negative log-likelihood of the trained tokens, in nats. */
  loss: number
  /** Global gradient norm before clipping. */
  gradNorm: number
  /** Sequences, their tokens, and the trained ones among these. */
  sequences: number
  tokens: { all: number; active: number }
  evaluation?: SFTScores
  best?: boolean
  seconds: { learn: number; evaluation: number; total: number }
  tokensPerSecond: { learn: number }
  memory: { resident: number; engine: number }
}

export interface SFTTrainerOptions extends PartialConfig {
  policy: Policy
  train: readonly Example[]
  evaluation?: readonly Example[]
  /** Receives what the user should know and no error says. */
  onWarning?: (message: string) => void
}

export interface SFTResumeOptions extends ResumeOptions {
  /** Checked against the checkpoint's, which holds its examples. */
  train?: readonly Example[]
  evaluation?: readonly Example[]
}

/** Fine-tunes a policy on examples; see `docs/config.md` for the settings. Same loop and checkpoints as `SSRLTrainer`. */
export class SFTTrainer {
  readonly config: Config
  readonly policy: Policy
  readonly #options: SFTTrainerOptions
  readonly #loop: TrainingLoop<SFTScores, SFTStepRecord>
  #template: PromptTemplate | null = null
  #sequences: SftSequence[] = []
  #held: SftSequence[] = []
  #order: DataOrder | null = null
  #cursor = 0
  #learner: Learner | null = null

  /** @throws SsrlError `ERR_INVALID_CONFIG` for settings that are unknown, out of range or make no sense together */
  constructor(options: SFTTrainerOptions) {
    const { policy, train, evaluation, onWarning, ...settings } = options
    this.config = parseConfig(settings, 'sft')
    if (!Array.isArray(train) || train.length === 0) {
      throw new SsrlError('ERR_INVALID_ARG', 'Expected at least one example for train')
    }
    this.policy = policy
    this.#options = options
    this.#loop = new TrainingLoop({
      trainer: 'sft',
      config: this.config,
      policy,
      prepare: (signal) => this.#prepare(signal),
      learner: () => this.#learner!,
      takeStep: async (step) => ({ record: await this.#takeStep(step), trajectories: [] }),
      evaluate: (signal) => this.#judge(signal),
      parts: () => ({
        'train.jsonl': exampleWriter(this.#options.train),
        'evaluation.jsonl': exampleWriter(this.#options.evaluation ?? []),
      }),
      describe: () => ({
        cursor: this.#order?.cursor ?? this.#cursor,
        promptTemplate: this.#template,
        rewards: [],
      }),
      savePolicy: (directory) => this.policy.save(directory, { dtype: 'f32' }),
    })
  }

  /** Goes on from a checkpoint, or from the newest one of a run's folder; see `SSRLTrainer.resume`. */
  static async resume(directory: string, options: SFTResumeOptions = {}): Promise<SFTTrainer> {
    const { train, evaluation, ...rest } = options
    const loaded = await loadCheckpoint(directory, 'sft', rest)
    try {
      const trainer = new SFTTrainer({
        ...loaded.settings,
        policy: loaded.policy,
        train: await storedExamples(loaded.directory, 'train', train),
        evaluation: await storedExamples(loaded.directory, 'evaluation', evaluation),
        onWarning: options.onWarning,
      })
      await trainer.#restore(loaded.directory, loaded.state)
      return trainer
    } catch (error) {
      await loaded.policy.dispose()
      throw error
    }
  }

  /** Optimizer steps done. */
  get step(): number {
    return this.#loop.step
  }

  /** The best evaluation so far: its step and minus its loss. */
  get best(): { step: number; score: number } | null {
    return this.#loop.best
  }

  /** Trains to `maxSteps`, one record after each step; see `SSRLTrainer.train`. */
  train(options: { signal?: AbortSignal } = {}): AsyncGenerator<SFTStepRecord, void, void> {
    return this.#loop.train(options.signal)
  }

  async run(options: { signal?: AbortSignal } = {}): Promise<SFTStepRecord | null> {
    let last: SFTStepRecord | null = null
    for await (const record of this.train(options)) last = record
    return last
  }

  /** Loss on the evaluation examples; null when there are none. */
  async evaluate(options: { signal?: AbortSignal } = {}): Promise<SFTScores | null> {
    await this.#loop.prepare(options.signal)
    return (await this.#judge(options.signal))?.scores ?? null
  }

  save(directory?: string): Promise<string> {
    return this.#loop.save(directory)
  }

  dispose(): void {
    this.#learner?.dispose()
    this.#learner = null
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  async #restore(directory: string, state: TrainerState): Promise<void> {
    this.#template = state.promptTemplate
    this.#cursor = state.cursor
    await this.#loop.prepare()
    await this.#learner!.loadState(path.join(directory, 'optimizer.safetensors'))
    this.#loop.restore(state)
  }

  async #prepare(signal?: AbortSignal): Promise<void> {
    this.#template ??= await resolveTemplate(this.config)
    this.#sequences = await this.#encode(this.#options.train, 'train', signal)
    const evaluation = this.#options.evaluation?.slice(0, this.config.evaluationLimit ?? undefined) ?? []
    this.#held = evaluation.length === 0 ? [] : await this.#encode(evaluation, 'evaluation', signal)
    this.#order = new DataOrder(this.#sequences.length, this.config.seed, this.#cursor, this.config.shuffle)
    this.#learner ??= new Learner(this.policy, learnerOptions(this.config))
  }

  async #encode(examples: readonly Example[], name: string, signal?: AbortSignal): Promise<SftSequence[]> {
    const { config, policy } = this
    const context = policy.config.maxPositions
    const longest = Math.min(
      config.maxLength ?? context,
      config.packing ? config.packedLength : context,
      context,
    )
    const { sequences, dropped } = await encodeExamples(tokenizerOf(policy), examples, {
      signal,
      ...config,
      promptTemplate: this.#template!,
      maxLength: longest,
    })
    if (sequences.length === 0) {
      throw new SsrlError(
        'ERR_DATASET',
        `None of the ${examples.length} examples of ${name} fits ${longest} tokens`,
      )
    }
    if (dropped > 0) {
      this.#options.onWarning?.(
        `${dropped} sequences of ${name} have more than ${longest} tokens, or none to train on, and are left out`,
      )
    }
    return sequences
  }

  /** One optimizer step. Nothing has changed when it throws. */
  async #takeStep(step: number): Promise<SFTStepRecord> {
    const { config } = this
    const order = this.#order!
    const cursor = order.cursor
    const learner = this.#learner!
    try {
      const clock = new Clock()
      const batch = takeBatch(
        { peek: () => this.#sequences[order.peek()]!, next: () => this.#sequences[order.take(1)[0]!]! },
        { rows: config.batchSize, packedLength: config.packing ? config.packedLength : null },
      )
      const active = countActive(batch)
      let loss = 0
      for (const { start, end } of microBatches(batch, config.microBatchTokens)) {
        const part = batch.slice(start, end)
        const statistics = await learner.accumulate(
          { tokens: part.map(({ tokens }) => tokens), lossMask: part.map(({ lossMask }) => lossMask) },
          { type: 'sft', normalizer: active },
        )
        loss += statistics.loss
      }
      const learningRate = learningRateAt(step, config)
      const { gradNorm } = await learner.step({ learningRate })
      const learn = clock.lap()
      const all = batch.reduce((sum, { tokens }) => sum + tokens.length, 0)
      return {
        step,
        epoch: order.epoch,
        learningRate,
        loss,
        gradNorm,
        sequences: batch.length,
        tokens: { all, active },
        seconds: { learn, evaluation: 0, total: learn },
        tokensPerSecond: { learn: all / learn },
        memory: memoryNow(),
      }
    } catch (error) {
      order.cursor = cursor
      await learner.zeroGradients()
      throw error
    }
  }

  async #judge(signal?: AbortSignal): Promise<{ scores: SFTScores; criterion: number } | null> {
    if (this.#held.length === 0) return null
    let sum = 0
    for (const { start, end } of microBatches(this.#held, this.config.microBatchTokens)) {
      const part = this.#held.slice(start, end)
      const scored = await this.policy.score(
        part.map(({ tokens }) => tokens),
        { signal },
      )
      for (const [index, { logProbs }] of scored.entries()) {
        const { lossMask } = part[index]!
        for (const [at, logProb] of logProbs.entries()) if (lossMask[at]) sum -= logProb
      }
    }
    const tokens = countActive(this.#held)
    const loss = sum / tokens
    const scores = { loss, perplexity: Math.exp(loss), sequences: this.#held.length, tokens }
    return { scores, criterion: -loss }
  }
}

function countActive(sequences: readonly SftSequence[]): number {
  return sequences.reduce((sum, { lossMask }) => sum + lossMask.reduce((count, bit) => count + bit, 0), 0)
}

function exampleWriter(examples: readonly Example[]) {
  return (file: string) => writeFile(file, examples.map((example) => `${JSON.stringify(example)}\n`).join(''))
}

async function storedExamples(
  directory: string,
  name: 'train' | 'evaluation',
  given: readonly Example[] | undefined,
): Promise<Example[]> {
  const stored = await readJsonl<Example>(path.join(directory, `${name}.jsonl`))
  if (given !== undefined && JSON.stringify(given) !== JSON.stringify(stored)) {
    refuseDifferences(directory, [
      `the examples of ${name} are others (checkpoint: ${stored.length}, now: ${given.length})`,
    ])
  }
  return stored
}
