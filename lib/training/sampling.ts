/** The trajectories of one step with their rewards; with dynamic sampling, refilled until enough questions teach. */
import type { RewardBreakdown } from '../rewards/compose.ts'
import { overlongPenalty } from '../rewards/overlong.ts'
import type { Trajectory } from '../rollout/trajectory.ts'
import type { Config } from './config.ts'
import { isConstant, membersOf } from './estimators/estimator.ts'
import { Clock } from './trainer-setup.ts'

export interface SampledStep {
  /** All that was sampled. */
  trajectories: Trajectory[]
  rewards: (number | null)[]
  parts: Record<string, (number | null)[]>
  /** The rewards to learn from: null where a group was dropped. */
  learnable: (number | null)[]
  /** Batches sampled, questions in them, and questions that are learnt from. */
  sampling: { rounds: number; groups: number; kept: number }
  seconds: { rollout: number; reward: number }
}

/** Where trajectories and rewards come from. */
export interface StepSource {
  /** Groups of the next `count` questions, numbered from `firstGroup`; each round has random numbers of its own. */
  rollOut(next: { count: number; round: number; firstGroup: number }): Promise<Trajectory[]>
  score(trajectories: readonly Trajectory[]): Promise<RewardBreakdown>
  /** Questions that there are. */
  questions: number
}

type SamplingSettings = Pick<
  Config,
  'promptsPerStep' | 'dynamicSampling' | 'maxGenerationBatches' | 'overlongBuffer' | 'maxCompletionLength'
>

/**
 * One batch of `promptsPerStep` questions. With `dynamicSampling` (DAPO, arXiv 2503.14476, §3.2) groups whose rewards are
 * all equal are dropped, and as many new questions sampled as are missing, until the batch is full, `maxGenerationBatches`
 * batches are sampled or every question has had its turn. Rewards are compared before the overlong penalty, which would
 * make groups differ that are all wrong.
 */
export async function sampleStep(source: StepSource, settings: SamplingSettings): Promise<SampledStep> {
  const { promptsPerStep, dynamicSampling } = settings
  const step: SampledStep = {
    trajectories: [],
    rewards: [],
    parts: {},
    learnable: [],
    sampling: { rounds: 0, groups: 0, kept: 0 },
    seconds: { rollout: 0, reward: 0 },
  }
  const rounds = dynamicSampling ? settings.maxGenerationBatches : 1
  for (let count = promptsPerStep; count > 0 && step.sampling.rounds < rounds; ) {
    await addRound(step, source, { count, drop: dynamicSampling })
    const { groups, kept } = step.sampling
    count = Math.min(promptsPerStep - kept, source.questions - groups)
  }
  await penalizeLength(step, settings)
  return step
}

async function addRound(
  step: SampledStep,
  source: StepSource,
  { count, drop }: { count: number; drop: boolean },
): Promise<void> {
  const { sampling, seconds } = step
  const clock = new Clock()
  const sampled = await source.rollOut({ count, round: sampling.rounds, firstGroup: sampling.groups })
  seconds.rollout += clock.lap()
  const { total, parts } = await source.score(sampled)
  seconds.reward += clock.lap()
  const teaches = drop ? groupsThatDiffer(sampled, total) : null
  step.trajectories.push(...sampled)
  step.rewards.push(...total)
  step.learnable.push(
    ...total.map((reward, index) => (teaches?.has(sampled[index]!.group) === false ? null : reward)),
  )
  for (const [name, values] of Object.entries(parts))
    step.parts[name] = [...(step.parts[name] ?? []), ...values]
  sampling.rounds += 1
  sampling.groups += count
  sampling.kept += teaches?.size ?? count
}

function groupsThatDiffer(
  trajectories: readonly Trajectory[],
  rewards: readonly (number | null)[],
): Set<number> {
  const members = membersOf(
    rewards,
    trajectories.map(({ group }) => group),
  )
  const differing = [...members].filter(([, indices]) => !isConstant(indices.map((index) => rewards[index]!)))
  return new Set(differing.map(([group]) => group))
}

async function penalizeLength(
  step: SampledStep,
  { overlongBuffer, maxCompletionLength }: SamplingSettings,
): Promise<void> {
  if (overlongBuffer === null) return
  const penalty = overlongPenalty({ maxLength: maxCompletionLength, buffer: overlongBuffer })
  const values = await penalty(step.trajectories, { signal: new AbortController().signal })
  const add = (reward: number | null, index: number) => (reward === null ? null : reward + values[index]!)
  step.rewards = step.rewards.map(add)
  step.learnable = step.learnable.map(add)
  step.parts.overlong = [...values]
}
