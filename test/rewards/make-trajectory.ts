import { createTrajectory, type Trajectory } from '../../lib/rollout/trajectory.ts'

/** A trajectory of one token with the given completion. */
export function makeTrajectory(text: string, goldenAnswers: string[], group = 0): Trajectory {
  return createTrajectory({
    questionId: `q${group}`,
    question: 'Who?',
    goldenAnswers,
    group,
    promptTokens: Int32Array.of(1),
    completionTokens: Int32Array.of(2),
    pieces: [text],
    logProbs: Float32Array.of(-1),
    entropies: Float32Array.of(1),
    finishReason: 'stop',
  })
}

/** A well-formed trajectory without search, of format 0.5. */
export function answering(answer: string, goldenAnswers: string[], group = 0): Trajectory {
  return makeTrajectory(`<think>hm</think><answer>${answer}</answer>`, goldenAnswers, group)
}
