import { mkdir } from 'node:fs/promises'
import path from 'node:path'
import { SsrlError } from '../errors.ts'
import type { Policy } from '../policy/policy.ts'
import { type PartWriter, writeCheckpoint } from './checkpoint.ts'
import type { Config, TrainerName } from './config.ts'
import type { Learner } from './learner.ts'
import { describeMachine } from './machine.ts'
import { RunFolder } from './run-folder.ts'
import type { TrainerState } from './trainer-state.ts'

/** What every step's record has, whichever trainer writes it. */
export interface LoopRecord<Scores> {
  step: number
  evaluation?: Scores
  best?: boolean
  /** The run ends with this step, whatever maxSteps says. */
  stopped?: boolean
  seconds: { evaluation: number; total: number }
}

/** A step that has been learnt: its record, and lines for trajectories.jsonl that are not written yet. */
export interface StepResult<R> {
  record: R
  trajectories: object[]
}

/** One way of training: what a step is, and how the policy is judged. */
export interface TrainingTask<Scores, R extends LoopRecord<Scores>> {
  readonly trainer: TrainerName
  readonly config: Config
  readonly policy: Policy
  /** Called once before the first step. */
  prepare(signal: AbortSignal | undefined): Promise<void>
  learner(): Learner
  /** One optimizer step; on failure or abort nothing has changed. */
  takeStep(step: number, signal: AbortSignal | undefined): Promise<StepResult<R>>
  /** Null without an evaluation set. `criterion`: larger is better. */
  evaluate(signal: AbortSignal | undefined): Promise<{ scores: Scores; criterion: number } | null>
  /** Parts of a checkpoint beside policy and optimizer. */
  parts(): Record<string, PartWriter>
  describe(): Pick<TrainerState, 'cursor' | 'promptTemplate' | 'rewards' | 'alarms' | 'search'>
  savePolicy(directory: string): Promise<void>
}

/**
 * What all trainers share: counting steps, evaluating, keeping checkpoints and writing records. A step is finished in
 * two halves - learning, then evaluation and records - and a checkpoint between them remembers the open record, so
 * that an abort during an evaluation loses nothing.
 */
export class TrainingLoop<Scores, R extends LoopRecord<Scores>> {
  readonly #task: TrainingTask<Scores, R>
  #step = 0
  #best: TrainerState['best'] = null
  #open: StepResult<R> | null = null
  #folder: RunFolder | null = null
  #prepared = false
  #running = false

  constructor(task: TrainingTask<Scores, R>) {
    this.#task = task
  }

  /** Optimizer steps done. */
  get step(): number {
    return this.#step
  }

  get best(): TrainerState['best'] {
    return this.#best
  }

  restore(state: TrainerState): void {
    this.#step = state.step
    this.#best = state.best
    this.#open = state.open as StepResult<R> | null
  }

  async prepare(signal?: AbortSignal): Promise<void> {
    if (this.#prepared) return
    await this.#task.prepare(signal)
    this.#prepared = true
  }

  async *train(signal?: AbortSignal): AsyncGenerator<R, void, void> {
    if (this.#running) throw new SsrlError('ERR_INVALID_ARG', 'This trainer is training already')
    this.#running = true
    try {
      await this.prepare(signal)
      await this.#openFolder()
      for (
        let stopped = false;
        !stopped && (this.#open !== null || this.#step < this.#task.config.maxSteps);
      ) {
        signal?.throwIfAborted()
        if (this.#open === null) {
          this.#open = await this.#task.takeStep(this.#step + 1, signal)
          this.#step += 1
        }
        const record = await this.#finish(this.#open, signal)
        stopped = record.stopped ?? false
        yield record
      }
    } finally {
      this.#running = false
    }
  }

  /** Writes a checkpoint; by default among the run's own. Returns where. */
  async save(directory?: string): Promise<string> {
    await this.prepare()
    const target = directory ?? this.#ownCheckpoint()
    await mkdir(path.dirname(path.resolve(target)), { recursive: true }).catch((cause) => {
      throw new SsrlError('ERR_CHECKPOINT', `Could not make the folder of ${target}: ${cause.message}`, {
        cause,
      })
    })
    const parts: Record<string, PartWriter> = {
      policy: (folder) => this.#task.savePolicy(folder),
      'optimizer.safetensors': (file) => this.#task.learner().saveState(file),
      ...this.#task.parts(),
    }
    await writeCheckpoint(target, parts, this.#state())
    return target
  }

  #ownCheckpoint(): string {
    const { outputDirectory } = this.#task.config
    if (outputDirectory === null) {
      throw new SsrlError(
        'ERR_INVALID_ARG',
        'Expected save(directory): this run has no outputDirectory of its own',
      )
    }
    return path.join(outputDirectory, 'checkpoints', `step-${String(this.#step).padStart(6, '0')}`)
  }

  #state(): TrainerState {
    return {
      trainer: this.#task.trainer,
      step: this.#step,
      config: this.#task.config,
      dtype: this.#task.policy.dtype,
      threads: this.#task.policy.threads,
      device: this.#task.policy.device,
      best: this.#best,
      open: this.#open,
      machine: describeMachine(),
      ...this.#task.describe(),
    }
  }

  async #openFolder(): Promise<void> {
    const { config } = this.#task
    if (this.#folder !== null || config.outputDirectory === null) return
    const { promptTemplate, rewards } = this.#task.describe()
    const settings = {
      trainer: this.#task.trainer,
      config,
      promptTemplate,
      rewards,
      machine: describeMachine(),
    }
    this.#folder = await RunFolder.open(config.outputDirectory, settings, {
      learnt: this.#step,
      steps: this.#open === null ? this.#step : this.#step - 1,
      trajectories: this.#open?.trajectories.length ? this.#step - 1 : this.#step,
    })
  }

  /** The second half of a step. It can be repeated after a failure: what is written already is not written again. */
  async #finish(open: StepResult<R>, signal?: AbortSignal): Promise<R> {
    const { config } = this.#task
    const { record } = open
    await this.#folder?.trajectories.append(...open.trajectories)
    open.trajectories = []
    const last = this.#step >= config.maxSteps || (record.stopped ?? false)
    const due = config.evaluateEvery > 0 && this.#step % config.evaluateEvery === 0
    if ((last || due) && record.evaluation === undefined) await this.#evaluate(record, signal)
    await this.#folder?.steps.append(record)
    this.#open = null
    if (this.#folder) await this.#keepCheckpoints(this.#folder, record, last)
    return record
  }

  async #evaluate(record: R, signal?: AbortSignal): Promise<void> {
    const started = performance.now()
    const result = await this.#task.evaluate(signal)
    if (result === null) return
    record.evaluation = result.scores
    record.seconds.evaluation = (performance.now() - started) / 1000
    record.seconds.total += record.seconds.evaluation
    if (this.#best !== null && result.criterion <= this.#best.score) return
    this.#best = { step: this.#step, score: result.criterion }
    record.best = true
  }

  async #keepCheckpoints(folder: RunFolder, record: R, last: boolean): Promise<void> {
    const { saveEvery, keep } = this.#task.config
    const due = saveEvery > 0 && this.#step % saveEvery === 0
    if (!last && !due && !record.best) return
    await this.save()
    if (record.best) await folder.checkpoints.markBest(this.#step)
    await folder.checkpoints.prune(keep, this.#best?.step ?? null)
    if (last) await this.#task.savePolicy(folder.policy)
  }
}
