/**
 * Test-time RL: no labels, the majority of a group's answers is taken for the truth. Questions are JSON objects, one a
 * line: {"question": "…"}. Golden answers are never trained on; where a question has some, agreement is measured.
 *
 *   node --import=tsx examples/ttrl.ts POLICY QUESTIONS OUTPUT [STEPS]
 */
import { loadQuestions, Policy, SSRLTrainer } from 'ssrl'

const [source, file, outputDirectory, steps = '100'] = process.argv.slice(2)
if (!source || !file || !outputDirectory) throw new Error('usage: ttrl.ts POLICY QUESTIONS OUTPUT [STEPS]')

const percent = (share: number | null) => (share === null ? 'unknown' : `${Math.round(100 * share)} %`)

const policy = await Policy.load(source)
const trainer = new SSRLTrainer({
  policy,
  train: await loadQuestions(file, { answers: 'optional' }),
  answerReward: 'majorityVote',
  outputDirectory,
  promptsPerStep: 4,
  numGenerations: 16,
  maxCompletionLength: 96,
  learningRate: 1e-6,
  maxSteps: Number(steps),
})

for await (const { step, labels } of trainer.train()) {
  const { consensus, ties, agreement, collapse } = labels!
  console.log(
    `step ${step}: consensus ${percent(consensus)}, ties ${percent(ties)},`,
    `labels right ${percent(agreement)}, agreed on a wrong answer ${percent(collapse)}`,
  )
}

trainer.dispose()
await policy.dispose()
