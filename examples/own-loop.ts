/**
 * The pieces without the trainer: sample a group, score it, and take one policy-gradient step by hand.
 *
 *   node --import=tsx examples/own-loop.ts POLICY "QUESTION" "ANSWER" [STEPS]
 */
import { exactMatchScore, Learner, Policy, parseCompletion } from 'ssrl'

const [source, question, answer, steps = '10'] = process.argv.slice(2)
if (!source || !question || !answer) throw new Error('usage: own-loop.ts POLICY QUESTION ANSWER [STEPS]')

const policy = await Policy.load(source)
const learner = new Learner(policy, { learningRate: 1e-6 })
const prompt = `Question: ${question}\nAnswer with <answer>…</answer>.\n`

for (let step = 1; step <= Number(steps); step++) {
  const group = await policy.generate([{ prompt, n: 8 }], { temperature: 1, maxNewTokens: 64, seed: step })

  const scores = group.map(({ text }) => {
    const { answer: given } = parseCompletion(text)
    return given === null ? 0 : 0.1 + 0.9 * exactMatchScore(given, [answer])
  })
  const mean = scores.reduce((sum, score) => sum + score, 0) / scores.length

  // Index t of a per-token array belongs to token t + 1: T - 1 values for T tokens.
  const sequences = group.map(({ promptTokens, tokens }) => Int32Array.of(...promptTokens, ...tokens))
  const statistics = await learner.accumulate(
    {
      tokens: sequences,
      lossMask: group.map(({ promptTokens }, i) =>
        Uint8Array.from({ length: sequences[i]!.length - 1 }, (_, t) =>
          t + 1 >= promptTokens.length ? 1 : 0,
        ),
      ),
      advantages: Float32Array.from(scores, (score) => score - mean),
    },
    { type: 'grpo', epsilon: 0.2, epsilonHigh: 0.2, beta: 0, temperature: 1 },
  )
  const { gradNorm } = await learner.step()
  console.log(step, { reward: mean, loss: statistics.loss, entropy: statistics.entropy, gradNorm })
}

learner.dispose()
await policy.dispose()
