import type { EvaluationScores } from '../evaluation/evaluate.ts'
import { mean } from '../mean.ts'
import type { Trajectory } from '../rollout/trajectory.ts'
import type { AlarmName } from './alarms.ts'
import type { CriticStatistics } from './critic.ts'
import { standardDeviation } from './estimators/whiten.ts'
import type { LossStatistics } from './learner.ts'
import type { PseudoLabels } from './pseudo-labels.ts'
import type { SearchLatency, SearchStatistics } from './search-record.ts'

/** What is written about every optimizer step. Means are over the trajectories of the step unless said otherwise. */
export interface StepRecord {
  /** 1 for the first. */
  step: number
  /** Share of the training questions seen so far; above 1 in the second round. */
  epoch: number
  learningRate: number
  trajectories: number
  /** Batches sampled for the step, questions in them, and questions that are learnt from: see dynamicSampling. */
  sampling: { rounds: number; groups: number; kept: number }
  /** Of the rewards that are not null. */
  reward: { mean: number; std: number; min: number; max: number }
  /** Mean of each part of the reward, unweighted. */
  rewardParts: Record<string, number>
  nullRewards: number
  format: { mean: number }
  /** Over the trajectories whose question has golden answers; null without any. */
  exactMatch: { mean: number | null }
  /** Share of trajectories with an answer; share of these that give the step's commonest answer (null: one question). */
  answers: { given: number; repetition: number | null }
  /** With answerReward 'majorityVote'. */
  labels?: PseudoLabels
  /** Completion tokens; `truncated` is the share that hit the length limit. */
  length: { mean: number; min: number; max: number; truncated: number }
  /** Closed searches per trajectory; `share` is the share with at least one. */
  searches: { mean: number; max: number; share: number }
  /** Where searches may be answered from outside: what became of them, and how long they took. */
  search?: SearchStatistics
  searchLatency?: SearchLatency
  /** The clipped policy-gradient loss with the KL term. */
  loss: number
  policyLoss: number
  /** Mean entropy of the sampling distribution over active tokens, in nats. */
  entropy: number
  /** Mean estimate (klEstimator) of KL(policy, reference) over active tokens; 0 when beta is 0. */
  kl: number
  /** Share of active tokens whose ratio left the clip range downwards and upwards. */
  clip: { low: number; high: number }
  /** Importance ratio over active tokens, all passes and mini-batches of the step. */
  ratio: { mean: number; max: number }
  /** With estimator 'gae'. */
  critic?: CriticStatistics
  zeroVarianceGroups: number
  /** max |log-prob of the learner's own forward - the sampler's| over active tokens of the first optimizer step on them; 0 is expected. */
  mismatch: number
  /** Global gradient norm before clipping, of the last optimizer step. */
  gradNorm: number
  tokens: { prompt: number; completion: number; active: number }
  /** Collapse alarms that ring, if any do. */
  alarms?: AlarmName[]
  /** The run ends here for an alarm that began to ring. */
  stopped?: boolean
  evaluation?: EvaluationScores
  /** The evaluation of this step is the best so far. */
  best?: boolean
  seconds: { rollout: number; reward: number; learn: number; evaluation: number; total: number }
  /** Completion tokens per second of rollout; trained tokens (prompts included, all passes) per second of learning. */
  tokensPerSecond: { rollout: number; learn: number }
  /** Bytes: resident memory of the process, and what the engine holds. */
  memory: { resident: number; engine: number }
}

type WithoutTimes<T> = Omit<T, 'seconds' | 'tokensPerSecond' | 'memory' | 'searchLatency'>

/** A record without what a repeated run can't repeat: times, speeds and memory. */
export function withoutTimes<T extends object>(record: T): WithoutTimes<T> {
  const { seconds, tokensPerSecond, memory, searchLatency, ...rest } = record as T & Record<string, unknown>
  return rest as WithoutTimes<T>
}

type RolloutStatistics = Pick<
  StepRecord,
  'trajectories' | 'reward' | 'nullRewards' | 'format' | 'length' | 'searches' | 'rewardParts'
>

/** The part of a record that is known before learning. */
export function describeRollout(
  trajectories: readonly Trajectory[],
  rewards: readonly (number | null)[],
  parts: Record<string, readonly (number | null)[]>,
): RolloutStatistics {
  const scored = rewards.filter((reward) => reward !== null)
  const lengths = trajectories.map(({ tokens, promptLength }) => tokens.length - promptLength)
  const searches = trajectories.map(({ searchCount }) => searchCount)
  return {
    trajectories: trajectories.length,
    reward: { mean: mean(scored), std: standardDeviation(scored), ...extremes(scored) },
    rewardParts: Object.fromEntries(
      Object.entries(parts).map(([name, values]) => [name, mean(values.filter((value) => value !== null))]),
    ),
    nullRewards: rewards.length - scored.length,
    format: { mean: mean(trajectories.map(({ format }) => format)) },
    length: { mean: mean(lengths), ...extremes(lengths), truncated: share(trajectories, isTruncated) },
    searches: {
      mean: mean(searches),
      max: extremes(searches).max,
      share: share(searches, (count) => count > 0),
    },
  }
}

const isTruncated = ({ finishReason }: Trajectory) => finishReason === 'length'

function share<T>(items: readonly T[], holds: (item: T) => boolean): number {
  return items.length === 0 ? 0 : items.filter(holds).length / items.length
}

function extremes(values: readonly number[]): { min: number; max: number } {
  if (values.length === 0) return { min: 0, max: 0 }
  return { min: Math.min(...values), max: Math.max(...values) }
}

/** The learner's statistics of one pass over one micro-batch. */
export type PassStatistics = Omit<
  LossStatistics,
  'sequences' | 'recomputed' | 'valueLoss' | 'value' | 'valueClip'
>

export type LearningStatistics = Pick<
  StepRecord,
  'loss' | 'policyLoss' | 'kl' | 'entropy' | 'clip' | 'ratio' | 'mismatch'
>

/** Puts micro-batches together: losses add up (they share one denominator), means are weighted by their tokens. */
export function summarizePasses(passes: readonly (readonly PassStatistics[])[]): LearningStatistics {
  const all = passes.flat()
  const tokens = all.reduce((sum, pass) => sum + pass.tokens, 0)
  const overTokens = (name: 'kl' | 'entropy' | 'clipLow' | 'clipHigh' | 'ratioMean') =>
    tokens === 0 ? 0 : all.reduce((sum, pass) => sum + pass[name] * pass.tokens, 0) / tokens
  const perPass = (name: 'loss' | 'policyLoss') =>
    mean(passes.map((batches) => batches.reduce((sum, batch) => sum + batch[name], 0)))
  return {
    loss: perPass('loss'),
    policyLoss: perPass('policyLoss'),
    kl: overTokens('kl'),
    entropy: overTokens('entropy'),
    clip: { low: overTokens('clipLow'), high: overTokens('clipHigh') },
    ratio: { mean: overTokens('ratioMean'), max: all.reduce((max, pass) => Math.max(max, pass.ratioMax), 0) },
    mismatch: (passes[0] ?? []).reduce((max, pass) => Math.max(max, pass.mismatch), 0),
  }
}

type Costs = Pick<StepRecord, 'tokens' | 'seconds' | 'tokensPerSecond' | 'memory'>

/** What a step cost. `trained` is what was learnt from, `passes` times. */
export function describeCosts(
  trajectories: readonly Trajectory[],
  trained: { sequences: readonly { tokens: Int32Array }[]; activeTokens: number },
  cost: {
    seconds: { rollout: number; reward: number; learn: number }
    passes: number
    memory: StepRecord['memory']
  },
): Costs {
  const prompt = trajectories.reduce((sum, { promptLength }) => sum + promptLength, 0)
  const completion = countTokens(trajectories) - prompt
  const { rollout, reward, learn } = cost.seconds
  return {
    tokens: { prompt, completion, active: trained.activeTokens },
    seconds: { ...cost.seconds, evaluation: 0, total: rollout + reward + learn },
    tokensPerSecond: {
      rollout: completion / rollout,
      learn: (countTokens(trained.sequences) * cost.passes) / learn,
    },
    memory: cost.memory,
  }
}

const countTokens = (sequences: readonly { tokens: Int32Array }[]) =>
  sequences.reduce((sum, { tokens }) => sum + tokens.length, 0)
