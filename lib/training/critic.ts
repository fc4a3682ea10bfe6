/**
 * The critic of PPO: a value head on a copy of the policy that is trained beside it, or on the policy's own trunk. What it
 * says of a state is the value of the token that follows; masked tokens have no part in its loss.
 */
import type { Policy } from '../policy/policy.ts'
import type { PartWriter } from './checkpoint.ts'
import type { Config } from './config.ts'
import { standardDeviation } from './estimators/whiten.ts'
import { Learner, type LossStatistics } from './learner.ts'
import type { LossSequence } from './loss-batch.ts'
import { microBatches } from './micro-batches.ts'
import { learnerOptions } from './trainer-setup.ts'

/** What the critic did in one step. */
export interface CriticStatistics {
  /** ½ max((v - R)², (clip(v) - R)²) over active tokens, mean over optimizer steps. */
  loss: number
  /** Share of active tokens whose value the clip holds back. */
  clip: number
  /** 1 - Var(R - V) / Var(R) over active tokens, with the values that advantages were estimated by. */
  explainedVariance: number
  /** Of the last optimizer step; with a shared trunk that of the policy is its own too. */
  gradNorm: number
}

export type CriticSettings = Pick<Config, 'microBatchTokens' | 'valueClip' | 'valueCoefficient'>

export class Critic {
  /** Its value head is the critic's; with a shared trunk it is the policy's learner, too. */
  readonly learner: Learner
  /** Null with a shared trunk. */
  readonly copy: Policy | null

  private constructor(learner: Learner, copy: Policy | null) {
    this.learner = learner
    this.copy = copy
  }

  /** A copy of the policy as it is now, with a head of its own. */
  static async ofCopy(policy: Policy, config: Config): Promise<Critic> {
    const copy = await policy.clone()
    return Critic.of(copy, config)
  }

  /** A copy that exists, such as one from a checkpoint. */
  static of(copy: Policy, config: Config): Critic {
    const options = { ...learnerOptions(config), learningRate: config.criticLearningRate, valueHead: true }
    return new Critic(new Learner(copy, options), copy)
  }

  static shared(learner: Learner): Critic {
    return new Critic(learner, null)
  }

  get isShared(): boolean {
    return this.copy === null
  }

  /** Gives sequences the values of the states that their tokens were sampled from. */
  async attachValues(sequences: readonly LossSequence[]): Promise<void> {
    const values = await this.learner.values(sequences.map(({ tokens }) => tokens))
    for (const [index, sequence] of sequences.entries()) sequence.values = values[index]!
  }

  /** The gradients of one optimizer step on the returns of sequences; a failure drops them. */
  async accumulate(sequences: readonly LossSequence[], settings: CriticSettings): Promise<LossStatistics[]> {
    const { learner, isShared } = this
    const normalizer = sequences.reduce((sum, { lossWeights }) => sum + weightOf(lossWeights), 0)
    const loss = { ...valueOptions(settings), type: 'value', valueCoefficient: 1, normalizer } as const
    const batches: LossStatistics[] = []
    try {
      for (const { start, end } of microBatches(sequences, settings.microBatchTokens)) {
        const batch = toValueBatch(sequences.slice(start, end))
        batches.push(await learner.accumulate(batch, { ...loss, detachValue: isShared }))
      }
      return batches
    } catch (error) {
      await learner.zeroGradients()
      throw error
    }
  }

  /** With a shared trunk the head alone moves. */
  async step(learningRate: number): Promise<number> {
    return (await this.learner.step({ learningRate, valueHeadOnly: this.isShared })).gradNorm
  }

  /** Parts of a checkpoint: with a shared trunk there are none beside the policy's. */
  parts(): Record<string, PartWriter> {
    const { copy, learner } = this
    if (copy === null) return {}
    return {
      critic: (folder) => copy.save(folder, { dtype: 'f32' }),
      'critic-optimizer.safetensors': (file) => learner.saveState(file),
    }
  }

  dispose(): void {
    if (this.copy === null) return
    this.learner.dispose()
    void this.copy.dispose()
  }
}

/** 1 - Var(R - V) / Var(R); 0 where all returns are equal. */
export function explainedVariance(sequences: readonly LossSequence[]): number {
  const returns: number[] = []
  const errors: number[] = []
  for (const { lossMask, returns: targets, values } of sequences) {
    for (const [t, active] of lossMask.entries()) {
      if (active === 0) continue
      returns.push(targets![t]!)
      errors.push(targets![t]! - values![t]!)
    }
  }
  const spread = standardDeviation(returns)
  return spread === 0 ? 0 : 1 - (standardDeviation(errors) / spread) ** 2
}

/** What the value loss takes of sequences. */
export function toValueBatch(sequences: readonly LossSequence[]) {
  return {
    tokens: sequences.map(({ tokens }) => tokens),
    lossMask: sequences.map(({ lossMask }) => lossMask),
    lossWeights: sequences.map(({ lossWeights }) => lossWeights),
    returns: sequences.map(({ returns }) => returns!),
    oldValues: sequences.map(({ values }) => values!),
  }
}

export function valueOptions({ valueClip, valueCoefficient }: CriticSettings) {
  return { valueCoefficient, ...(valueClip === null ? {} : { valueClip }) }
}

const weightOf = (weights: Float32Array) => weights.reduce((sum, weight) => sum + weight, 0)
