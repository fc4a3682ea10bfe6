/**
 * SSRL: the policy answers its own searches, and learns from the answers' score. Questions are JSON objects, one a line:
 * {"question": "…", "golden_answers": ["…"]}.
 *
 *   node --import=tsx examples/ssrl.ts POLICY TRAIN HELD_OUT OUTPUT [STEPS]
 */
import { loadQuestions, Policy, SSRLTrainer } from 'ssrl'

const [source, train, heldOut, outputDirectory, steps = '100'] = process.argv.slice(2)
if (!source || !train || !heldOut || !outputDirectory) {
  throw new Error('usage: ssrl.ts POLICY TRAIN HELD_OUT OUTPUT [STEPS]')
}

const policy = await Policy.load(source)
const trainer = new SSRLTrainer({
  policy,
  train: await loadQuestions(train),
  evaluation: await loadQuestions(heldOut),
  outputDirectory,
  promptsPerStep: 4,
  numGenerations: 8,
  maxCompletionLength: 96,
  learningRate: 1e-6,
  maxSteps: Number(steps),
})

for await (const step of trainer.train()) {
  const { reward, format, searches, mismatch } = step
  console.log(
    `step ${step.step}: reward ${reward.mean.toFixed(3)}, format ${format.mean.toFixed(2)},`,
    `${searches.mean.toFixed(1)} searches, log-prob mismatch ${mismatch}`,
  )
}

console.log('held out:', await trainer.evaluate())
trainer.dispose()
await policy.dispose()
