/**
 * Self-Search RL (arXiv 2508.10874) by group-relative policy gradients (GRPO, arXiv 2402.03300). Deviations:
 * 1. The old log-probs are the sampler's own, bit for bit: there is no second forward pass (unless `policy.exact` is
 *    false).
 * 2. Only an information block that directly answers a search is kept out of the loss; the reference code's mask misses
 *    multi-line blocks and repetitions.
 * 3. Generation stops at `</answer>`, which is trained; the reference goes on to the end token.
 * 4. A group of equal rewards gets advantages of exactly 0.
 */
import type { Question } from '../data/questions.ts'
import type { EvaluationScores } from '../evaluation/evaluate.ts'
import type { Policy } from '../policy/policy.ts'
import { derivedSeed } from '../random-seed.ts'
import type { ComposedReward } from '../rewards/compose.ts'
import { STOP_TAG } from '../rollout/grammar.ts'
import type { PromptTemplate } from '../rollout/prompts.ts'
import { dropLongPrompts, selfSearchAll } from '../rollout/self-search.ts'
import type { Trajectory } from '../rollout/trajectory.ts'
import type { SearchProvider } from '../search/provider.ts'
import { Alarms, describeAnswers } from './alarms.ts'
import type { PartWriter } from './checkpoint.ts'
import type { Config } from './config.ts'
import { type PartialConfig, parseConfig } from './config-parse.ts'
import { DataOrder } from './data-order.ts'
import { countConstantGroups } from './estimators/index.ts'
import { learnFrom } from './learn.ts'
import { memoryNow } from './machine.ts'
import { describeLabels } from './pseudo-labels.ts'
import { loadCheckpoint, type ResumeOptions, refuseDifferences, storedQuestions } from './resume.ts'
import { createReward, groupsOf, meanExactMatch, type RewardOption, trajectoryLines } from './rollout-step.ts'
import { openSearch, type RunSearch, requireProvider } from './run-search.ts'
import { type StepSource, sampleStep } from './sampling.ts'
import { learningRateAt } from './schedule.ts'
import { describeSearches } from './search-record.ts'
import { describeCosts, describeRollout, type StepRecord } from './step-record.ts'
import {
  Clock,
  evaluateOnHeldOut,
  promptLimit,
  requireGoldenAnswers,
  requireInputs,
  resolveTemplate,
  startWarnings,
} from './trainer-setup.ts'
import { questionWriter, type TrainerState } from './trainer-state.ts'
import { type StepResult, TrainingLoop } from './training-loop.ts'
import { TrainingModels } from './training-models.ts'

export interface SSRLTrainerOptions extends PartialConfig {
  policy: Policy
  /** Training questions. */
  train: readonly Question[]
  /** Held-out questions. */
  evaluation?: readonly Question[]
  /** Instead of (1 - formatWeight)·answerReward + formatWeight·format. */
  rewards?: RewardOption
  /** Answers searches, where `searchSchedule` says so, instead of what `searchProvider` names; it stays the caller's. */
  search?: SearchProvider
  /** Receives what the user should know and no error says; the library itself prints nothing. */
  onWarning?: (message: string) => void
}

export interface SSRLResumeOptions extends ResumeOptions {
  /** Checked against the checkpoint's, which holds its questions. */
  train?: readonly Question[]
  evaluation?: readonly Question[]
  rewards?: RewardOption
  /** To be given again if it was the user's own. */
  search?: SearchProvider
}

/** A signal that never fires; a shared one would gather listeners. */
const never = () => new AbortController().signal

/** Trains a policy to search its own memory; see `docs/config.md` for the settings. */
export class SSRLTrainer {
  readonly config: Config
  readonly policy: Policy
  readonly #options: SSRLTrainerOptions
  readonly #reward: ComposedReward
  readonly #loop: TrainingLoop<EvaluationScores, StepRecord>
  #template: PromptTemplate | null = null
  #questions: Question[] = []
  #order: DataOrder | null = null
  #cursor = 0
  #models: TrainingModels | null = null
  #alarms: Alarms
  #search: RunSearch | null = null

  /** @throws SsrlError `ERR_INVALID_CONFIG` for settings that are unknown, out of range or make no sense together */
  constructor(options: SSRLTrainerOptions) {
    const { policy, train, evaluation, rewards, search, onWarning, ...settings } = options
    this.config = parseConfig(settings, 'ssrl')
    this.#options = options
    requireInputs(options)
    requireProvider(this.config, search)
    if (!this.#votes && rewards === undefined) requireGoldenAnswers(train)
    this.policy = policy
    this.#reward = createReward(this.config, rewards)
    this.#alarms = new Alarms(this.config)
    this.#loop = new TrainingLoop({
      trainer: 'ssrl',
      config: this.config,
      policy,
      prepare: (signal) => this.#prepare(signal),
      learner: () => this.#models!.learner,
      takeStep: (step, signal) => this.#takeStep(step, signal),
      evaluate: (signal) => this.#judge(signal),
      parts: () => this.#parts(),
      describe: () => ({
        cursor: this.#order?.cursor ?? this.#cursor,
        promptTemplate: this.#template,
        rewards: this.#reward.parts.map(({ name }) => name),
        alarms: this.#alarms.state,
        search: this.#searchName,
      }),
      savePolicy: (directory) => this.#savePolicy(directory),
    })
  }

  /**
   * Goes on from a checkpoint, or from the newest one of a run's folder: on the same kind of CPU and library, records
   * (times aside) and weights are those of a run that never stopped, bit for bit.
   *
   * @param options rewards must be given again if they were the user's own; settings may be repeated, not changed
   * @throws SsrlError `ERR_CHECKPOINT` when it is damaged or of another configuration, saying what differs
   */
  static async resume(directory: string, options: SSRLResumeOptions = {}): Promise<SSRLTrainer> {
    const { train, evaluation, rewards, search, ...rest } = options
    const loaded = await loadCheckpoint(directory, 'ssrl', rest)
    const { policy, settings, state } = loaded
    let trainer: SSRLTrainer | null = null
    try {
      trainer = new SSRLTrainer({
        ...settings,
        policy,
        train: (await storedQuestions(loaded.directory, 'train', train)) ?? [],
        evaluation: await storedQuestions(loaded.directory, 'evaluation', evaluation),
        rewards,
        search,
        onWarning: options.onWarning,
      })
      await trainer.#restore(loaded.directory, state)
      return trainer
    } catch (error) {
      trainer?.dispose()
      await policy.dispose()
      throw error
    }
  }

  async #restore(directory: string, state: TrainerState): Promise<void> {
    const names = this.#reward.parts.map(({ name }) => name)
    if (names.join() !== state.rewards.join()) {
      refuseDifferences(directory, [
        `rewards (checkpoint: ${state.rewards.join(', ')}, now: ${names.join(', ')})`,
      ])
    }
    this.#template = state.promptTemplate
    this.#alarms = new Alarms(this.config, state.alarms)
    this.#cursor = state.cursor
    this.#models = await TrainingModels.load(this.policy, this.config, { directory, dtype: state.dtype })
    await this.#loop.prepare()
    // Another engine or another index answers otherwise.
    if (state.search !== undefined && state.search !== this.#searchName) {
      const shown = [state.search, this.#searchName].map((name) => name ?? 'the policy itself')
      refuseDifferences(directory, [`who answers searches (checkpoint: ${shown[0]}, now: ${shown[1]})`])
    }
    this.#loop.restore(state)
  }

  /** The reward is the majority's, not the user's own. */
  get #votes(): boolean {
    return this.config.answerReward === 'majorityVote' && this.#options.rewards === undefined
  }

  get #searchName(): string | null {
    return this.#search?.search.desk.provider.name ?? null
  }

  /** Optimizer steps done. */
  get step(): number {
    return this.#loop.step
  }

  /** The best evaluation so far: its step and its exact match. */
  get best(): { step: number; score: number } | null {
    return this.#loop.best
  }

  /**
   * Trains to `maxSteps`, one record after each step. Leaving the loop stops after that step; calling `train()` again
   * goes on. An abort rejects with the signal's reason and leaves the last complete step: `save()` works then.
   */
  train(options: { signal?: AbortSignal } = {}): AsyncGenerator<StepRecord, void, void> {
    return this.#loop.train(options.signal)
  }

  /** Trains to `maxSteps` without looking; gives the last record. */
  async run(options: { signal?: AbortSignal } = {}): Promise<StepRecord | null> {
    let last: StepRecord | null = null
    for await (const record of this.train(options)) last = record
    return last
  }

  /** Evaluates on the held-out questions; null when there are none. */
  async evaluate(options: { signal?: AbortSignal } = {}): Promise<EvaluationScores | null> {
    await this.#loop.prepare(options.signal)
    return (await this.#judge(options.signal))?.scores ?? null
  }

  /** Writes a checkpoint (by default among those of `outputDirectory`), atomically, and gives its folder. */
  save(directory?: string): Promise<string> {
    return this.#loop.save(directory)
  }

  /** Frees optimizer state, reference and critic; the policy stays. */
  dispose(): void {
    this.#models?.dispose()
    this.#models = null
    void this.#search?.close()
    this.#search = null
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  async #prepare(signal?: AbortSignal): Promise<void> {
    const { config, policy } = this
    this.#template ??= await resolveTemplate(config)
    const maxPromptLength = promptLimit(config, policy)
    const { kept, dropped } = await dropLongPrompts(policy, this.#options.train, {
      signal,
      promptTemplate: this.#template,
      maxPromptLength,
    })
    this.#questions = kept
    for (const message of startWarnings(this.#options, { dropped, maxPromptLength }))
      this.#options.onWarning?.(message)
    this.#order = new DataOrder(kept.length, config.seed, this.#cursor)
    this.#search ??= await openSearch(config, this.#options.search, signal)
    this.#models ??= await TrainingModels.open(policy, config)
  }

  /** Question → trajectories → rewards → advantages → update. When it throws, nothing has changed. */
  async #takeStep(step: number, signal?: AbortSignal): Promise<StepResult<StepRecord>> {
    const { config, policy } = this
    const order = this.#order!
    const cursor = order.cursor
    try {
      const sampled = await sampleStep(this.#stepSource(step, signal), config)
      const { trajectories, rewards, parts, learnable, sampling } = sampled
      this.#tellShortage(step, sampling)
      signal?.throwIfAborted()
      const clock = new Clock()
      const { learner, reference, critic } = this.#models!
      const models = { policy, learner, reference, critic }
      const learningRate = learningRateAt(step, config)
      const rates = { learningRate, isWarmUp: critic !== null && step <= config.criticWarmupSteps }
      const scored = { trajectories, rewards: learnable }
      const { advantages, prepared, statistics } = await learnFrom(models, scored, config, rates)
      const seconds = { ...sampled.seconds, learn: clock.lap() }
      const record: StepRecord = {
        step,
        epoch: order.epoch,
        learningRate,
        ...describeRollout(trajectories, rewards, parts),
        ...(this.#search ? describeSearches(trajectories) : {}),
        answers: describeAnswers(trajectories),
        exactMatch: { mean: await meanExactMatch(trajectories) },
        ...(this.#votes ? { labels: describeLabels(trajectories) } : {}),
        sampling,
        ...statistics,
        zeroVarianceGroups: countConstantGroups(rewards, groupsOf(trajectories)),
        ...describeCosts(trajectories, prepared, {
          seconds,
          passes: config.numIterations,
          memory: memoryNow(),
        }),
      }
      this.#watch(record)
      return { record, trajectories: trajectoryLines(trajectories, { step, rewards, advantages }, config) }
    } catch (error) {
      order.cursor = cursor
      throw error
    }
  }

  #watch(record: StepRecord): void {
    const { alarms } = this.config
    if (alarms === 'off') return
    const { ringing, begun } = this.#alarms.check(record)
    if (ringing.length > 0) record.alarms = ringing
    for (const message of begun) this.#options.onWarning?.(message)
    if (alarms === 'stop' && begun.length > 0) record.stopped = true
  }

  #stepSource(step: number, signal?: AbortSignal): StepSource {
    return {
      questions: this.#questions.length,
      rollOut: (next) => this.#rollOut(step, next, signal),
      score: (trajectories) => this.#reward.breakdown(trajectories, { step, signal: signal ?? never() }),
    }
  }

  #tellShortage(step: number, { rounds, groups, kept }: StepRecord['sampling']): void {
    if (!this.config.dynamicSampling || kept >= this.config.promptsPerStep) return
    this.#options.onWarning?.(
      `step ${step}: the rewards of only ${kept} of ${groups} questions differ after ${rounds} batches; it learns from ` +
        `these instead of ${this.config.promptsPerStep}`,
    )
  }

  async #rollOut(
    step: number,
    { count, round, firstGroup }: Parameters<StepSource['rollOut']>[0],
    signal?: AbortSignal,
  ): Promise<Trajectory[]> {
    const { config } = this
    const questions = this.#order!.take(count).map((index) => this.#questions[index]!)
    const seed = round === 0 ? derivedSeed(config.seed, step) : derivedSeed(config.seed, step, round)
    const groups = await selfSearchAll(this.policy, questions, {
      n: config.numGenerations,
      temperature: config.temperature,
      maxNewTokens: config.maxCompletionLength,
      promptTemplate: this.#template!,
      stopAtAnswer: config.stopAtAnswer,
      format: config.format,
      seed,
      firstGroup,
      search: this.#search?.search,
      step,
      steps: config.maxSteps,
      signal,
    })
    return groups.flat()
  }

  async #judge(signal?: AbortSignal): Promise<{ scores: EvaluationScores; criterion: number } | null> {
    const { evaluation = [] } = this.#options
    return evaluateOnHeldOut(
      this.policy,
      evaluation,
      { ...this.config, promptTemplate: this.#template!, search: this.#search?.search },
      signal,
    )
  }

  #parts(): Record<string, PartWriter> {
    return {
      'train.jsonl': questionWriter(this.#options.train),
      'evaluation.jsonl': questionWriter(this.#options.evaluation ?? []),
      ...this.#models!.parts(),
    }
  }

  async #savePolicy(directory: string): Promise<void> {
    const stopStrings = this.config.stopAtAnswer ? [STOP_TAG] : undefined
    await this.policy.save(directory, { dtype: 'f32', stopStrings })
  }
}
