/** What sequences need before they are learnt from: old and reference log-probs, values, advantages. */
import { mean } from '../mean.ts'
import type { Policy } from '../policy/policy.ts'
import type { Trajectory } from '../rollout/trajectory.ts'
import type { Config } from './config.ts'
import type { Critic } from './critic.ts'
import { type Advantage, type EstimatorSettings, estimate } from './estimators/index.ts'
import { klRewards } from './kl.ts'
import { attachDriftWeights } from './kl-cov.ts'
import { type LossSequence, type LossSettings, prepareSequences, type StepSequences } from './loss-batch.ts'

/** The trajectories of one step with their rewards; null takes one out of everything. */
export interface ScoredTrajectories {
  trajectories: readonly Trajectory[]
  rewards: readonly (number | null)[]
}

/** Who says something about sequences: the policy that sampled, the frozen reference (where beta is above 0), the critic. */
export interface Witnesses {
  policy: Policy
  reference: Policy | null
  critic?: Critic | null
}

export type CompletionSettings = EstimatorSettings &
  LossSettings &
  Pick<
    Config,
    'estimator' | 'beta' | 'klEstimator' | 'klPlacement' | 'klCovRatio' | 'klCovCoefficient' | 'temperature'
  >

export interface CompletedSequences {
  prepared: StepSequences
  /** One per trajectory; where tokens have advantages of their own, the mean over those that are learnt from. */
  advantages: (number | null)[]
  /** Mean KL over active tokens where it is a reward, else null. */
  kl: number | null
  /** Largest difference of a second forward pass from the sampler's log-probs; 0 where none was made. */
  inexactness: number
}

/** Picks what is learnt from, and gives it all that the loss takes. */
export async function completeSequences(
  { policy, reference, critic }: Witnesses,
  scored: ScoredTrajectories,
  settings: CompletionSettings,
): Promise<CompletedSequences> {
  const prepared = prepareSequences(scored.trajectories, scored.rewards, settings)
  const { sequences } = prepared
  const inexactness = await attachOldLogProbs(policy, sequences, settings.temperature)
  if (reference) await attachReferenceLogProbs(reference, sequences, settings.temperature)
  await critic?.attachValues(sequences)
  const isReward = settings.beta > 0 && settings.klPlacement === 'reward'
  const kl = isReward ? moveKlToRewards(prepared, settings) : null
  const advantages = attachAdvantages(scored, prepared, settings)
  if (settings.klCovRatio !== null)
    attachDriftWeights(sequences, { ...settings, klCovRatio: settings.klCovRatio })
  return { prepared, advantages, kl, inexactness }
}

/** Makes KL a reward of tokens instead of a term of the loss; returns its mean over active tokens. */
function moveKlToRewards({ sequences, activeTokens }: StepSequences, settings: CompletionSettings): number {
  let sum = 0
  for (const sequence of sequences) {
    sequence.tokenRewards = klRewards(sequence, settings)
    sequence.referenceLogProbs = undefined
    sum -= sequence.tokenRewards.reduce((total, reward) => total + reward, 0) / settings.beta
  }
  return sum / Math.max(activeTokens, 1)
}

const nothing = new Uint8Array(0)

/** Gives sequences their advantages, and returns one number a trajectory. */
function attachAdvantages(
  { trajectories, rewards }: ScoredTrajectories,
  { sequences }: StepSequences,
  settings: CompletionSettings,
): (number | null)[] {
  const learntFrom = new Map(sequences.map((sequence) => [sequence.index, sequence]))
  const scored = trajectories.map(({ group }, index) => ({
    group,
    reward: rewards[index]!,
    mask: learntFrom.get(index)?.lossMask ?? nothing,
    tokenRewards: learntFrom.get(index)?.tokenRewards,
    values: learntFrom.get(index)?.values,
  }))
  const { advantages, returns } = estimate(scored, settings)
  for (const sequence of sequences) {
    sequence.advantage = advantages[sequence.index]!
    sequence.returns = returns?.[sequence.index] ?? undefined
  }
  return advantages.map((advantage, index) => meanAdvantage(advantage, scored[index]!.mask))
}

function meanAdvantage(advantage: Advantage, mask: Uint8Array): number | null {
  if (advantage === null || typeof advantage === 'number') return advantage
  return mean(Array.from(advantage).filter((_, t) => mask[t] !== 0))
}

/**
 * Gives sequences the old log-probs that the ratio needs. Where the machine is exact they are the sampler's; else a
 * second forward pass computes them, and the largest difference from the sampler's is returned.
 */
async function attachOldLogProbs(
  policy: Policy,
  sequences: LossSequence[],
  temperature: number,
): Promise<number> {
  if (policy.exact || sequences.length === 0) return 0
  const scores = await policy.score(
    sequences.map(({ tokens }) => tokens),
    { temperature },
  )
  let mismatch = 0
  for (const [index, sequence] of sequences.entries()) {
    const scored = scores[index]!.logProbs
    for (const [position, active] of sequence.lossMask.entries()) {
      if (active) mismatch = Math.max(mismatch, Math.abs(scored[position]! - sequence.oldLogProbs[position]!))
    }
    sequence.oldLogProbs = scored
  }
  return mismatch
}

/** Gives sequences the log-probs of the frozen reference, for the KL term. */
async function attachReferenceLogProbs(
  reference: Policy,
  sequences: LossSequence[],
  temperature: number,
): Promise<void> {
  if (sequences.length === 0) return
  const scores = await reference.score(
    sequences.map(({ tokens }) => tokens),
    { temperature },
  )
  for (const [index, sequence] of sequences.entries()) sequence.referenceLogProbs = scores[index]!.logProbs
}
