import type { Completion } from '../../lib/policy/completion.ts'
import type { Policy } from '../../lib/policy/policy.ts'
import type { GenerateRequest } from '../../lib/policy/requests.ts'
import { Random } from '../../lib/random.ts'
import { Learner } from '../../lib/training/learner.ts'
import { someTokens } from './byte-policy.ts'

export const newLearner = (policy: Policy) => new Learner(policy, { learningRate: 0 })

const whole = ({ promptTokens, tokens }: Completion) => Int32Array.of(...promptTokens, ...tokens)
const sameBits = (a: Float32Array, b: Float32Array) =>
  Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength))

/**
 * Compares the completions' log-probs and entropies with those of scoring, and their log-probs with the learner's
 * forward pass, bit for bit. Gives what differs: nothing, if all is well.
 */
export async function inexactnesses(
  policy: Policy,
  learner: Learner,
  completions: readonly Completion[],
  temperature: number,
): Promise<string[]> {
  const found: string[] = []
  const sequences = completions.map(whole)
  const scores = await policy.score(sequences, { temperature })
  for (const [i, { promptTokens, logProbs, entropies }] of completions.entries()) {
    const first = promptTokens.length - 1
    const prompt = `row ${i}, prompt of ${promptTokens.length}`
    if (!sameBits(logProbs, scores[i]!.logProbs.slice(first))) found.push(`log-probs of score: ${prompt}`)
    if (!sameBits(entropies, scores[i]!.entropies.slice(first))) found.push(`entropies of score: ${prompt}`)
  }
  const statistics = await learner.accumulate(
    {
      tokens: sequences,
      lossMask: completions.map(completionMask),
      advantages: Float32Array.from(completions, (_, i) => (i % 2 ? 1 : -1)),
      oldLogProbs: completions.map(({ promptTokens, logProbs }) =>
        Float32Array.of(...new Float32Array(promptTokens.length - 1), ...logProbs),
      ),
    },
    { type: 'grpo', epsilon: 0.2, epsilonHigh: 0.2, beta: 0, temperature },
  )
  await learner.zeroGradients()
  const { mismatch, tokens, ratioMax } = statistics
  const expected = completions.reduce((sum, completion) => sum + completion.tokens.length, 0)
  if (tokens !== expected) found.push(`the learner saw ${tokens} tokens of ${expected}`)
  if (mismatch !== 0 || ratioMax !== 1) found.push(`log-probs of the learner: ${mismatch}, ratio ${ratioMax}`)
  return found
}

function completionMask({ promptTokens, tokens }: Completion): Uint8Array {
  const mask = new Uint8Array(promptTokens.length + tokens.length - 1)
  return mask.fill(1, promptTokens.length - 1)
}

export interface BatchShape {
  /** rows in all, whatever the groups */
  rows: number
  seed: number
  vocabSize: number
  longestPrompt: number
  mostNew: number
}

/** Requests of exactly `rows` rows: prompts of 1 to `longestPrompt` tokens, short ones more often, groups of 1 to 4. */
export function raggedBatch(shape: BatchShape): GenerateRequest[] {
  const random = new Random(shape.seed)
  const requests: GenerateRequest[] = []
  for (let left = shape.rows; left > 0; ) {
    const n = Math.min(left, random.chance(0.3) ? 1 + random.integer(4) : 1)
    const length = 1 + Math.min(random.integer(shape.longestPrompt), random.integer(shape.longestPrompt))
    requests.push({
      tokens: someTokens(length, shape.seed * 100 + left, shape.vocabSize),
      n,
      maxNewTokens: 1 + random.integer(shape.mostNew),
    })
    left -= n
  }
  return requests
}
