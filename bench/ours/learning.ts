import type { Completion } from '../../lib/policy/completion.ts'
import type { Policy } from '../../lib/policy/policy.ts'
import { createTrajectory, type Trajectory } from '../../lib/rollout/trajectory.ts'
import { parseConfig } from '../../lib/training/config-parse.ts'
import { learnFrom } from '../../lib/training/learn.ts'
import { Learner } from '../../lib/training/learner.ts'
import type { GrpoWork, LearnerWork, Result } from '../job.ts'
import { type Repeats, timed } from './timed.ts'

type Partial = Omit<Result, 'peak' | 'version'>

/** Too small to change what the next repetition computes, so that all see the same model. */
const learningRate = 1e-9

/** One optimizer step of the policy-gradient loss over completions; advantages are 1 and -1 in turn. */
export async function learner(policy: Policy, work: LearnerWork, repeats: Repeats): Promise<Partial> {
  const tokens = work.sequences.map((sequence) => Int32Array.from(sequence))
  const batch = {
    tokens,
    lossMask: tokens.map(({ length }) =>
      Uint8Array.from({ length: length - 1 }, (_, t) => Number(t >= work.promptTokens - 1)),
    ),
    advantages: Float32Array.from(tokens, (_, i) => (i % 2 === 0 ? 1 : -1)),
  }
  using learner = new Learner(policy, { learningRate, weightDecay: 0 })
  let loss = 0
  let gradNorm = 0
  let recomputed = 0
  const step = async () => {
    const statistics = await learner.accumulate(batch, { type: 'bnpo' })
    loss = statistics.loss
    recomputed = statistics.recomputed
    gradNorm = (await learner.step()).gradNorm
  }
  await step()
  const first = { loss, gradNorm, recomputed }
  return { values: await timed(step, repeats), ...first }
}

/** A whole step: sample, reward, the reference's log-probs, update. The reward counts the vowels. */
export async function grpoStep(policy: Policy, work: GrpoWork, repeats: Repeats): Promise<Partial> {
  const { prompts, n, newTokens, beta } = work
  const settings = parseConfig({ lossType: 'grpo', beta, maxCompletionLength: newTokens }, 'ssrl')
  const reference = await policy.clone({ frozen: true })
  using learner = new Learner(policy, { learningRate, weightDecay: 0 })
  let seed = 0
  let loss = 0
  let gradNorm = 0
  const step = async () => {
    const requests = prompts.map((tokens) => ({ tokens: Int32Array.from(tokens), n }))
    const sampling = { temperature: 1, maxNewTokens: newTokens, ignoreEnd: true, seed: seed++ }
    const completions = await policy.generate(requests, sampling)
    const rewards = completions.map(({ text }) => vowels(text))
    const scored = { trajectories: completions.map(toTrajectory), rewards }
    const { statistics } = await learnFrom({ policy, reference, learner }, scored, settings, { learningRate })
    loss = statistics.loss
    gradNorm = statistics.gradNorm
  }
  const seconds = await timed(step, repeats)
  await reference.dispose()
  return { values: seconds, loss, gradNorm, note: `${prompts.length * n * newTokens} tokens sampled a step` }
}

function toTrajectory(completion: Completion): Trajectory {
  const { tokens, requestIndex, sampleIndex } = completion
  return createTrajectory({
    ...completion,
    questionId: String(requestIndex),
    question: '',
    goldenAnswers: [],
    group: requestIndex,
    sampleIndex,
    completionTokens: tokens,
    pieces: Array.from(tokens, () => ''),
  })
}

const vowels = (text: string) => text.split('').filter((letter) => 'aeiou'.includes(letter)).length
