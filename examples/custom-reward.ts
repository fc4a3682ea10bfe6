/**
 * A reward of your own beside those that come with the package: right answers, in the format, with few words.
 *
 *   node --import=tsx examples/custom-reward.ts POLICY TRAIN [STEPS]
 */
import { loadQuestions, Policy, type RewardFunction, rewards, SSRLTrainer } from 'ssrl'

const [source, train, steps = '100'] = process.argv.slice(2)
if (!source || !train) throw new Error('usage: custom-reward.ts POLICY TRAIN [STEPS]')

/** 1 for an empty trajectory, 0 for one of 128 tokens and more. null would mean: no score, leave it out. */
const brevity: RewardFunction = (trajectories) =>
  trajectories.map(({ tokens, promptLength }) => Math.max(0, 1 - (tokens.length - promptLength) / 128))

const policy = await Policy.load(source)
const trainer = new SSRLTrainer({
  policy,
  train: await loadQuestions(train),
  rewards: [
    { reward: rewards.exactMatch, weight: 0.8 },
    { reward: rewards.format, weight: 0.1 },
    { reward: brevity, weight: 0.1, name: 'brevity' },
  ],
  promptsPerStep: 4,
  numGenerations: 8,
  maxCompletionLength: 96,
  maxSteps: Number(steps),
})

for await (const { step, rewardParts } of trainer.train()) console.log(step, rewardParts)
trainer.dispose()
await policy.dispose()
