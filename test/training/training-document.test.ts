import { readFile } from 'node:fs/promises'
import test from 'ava'
import { selfProvider } from '../../lib/search/provider.ts'
import { SSRLTrainer } from '../../lib/training/ssrl-trainer.ts'
import { questions, shortTemplate, tinyPolicy } from '../helpers/tiny-policy.ts'

test('docs/training.md explains every field of a step record', async (t) => {
  const document = await readFile(new URL('../../docs/training.md', import.meta.url), 'utf8')
  const policy = await tinyPolicy()
  const trainer = new SSRLTrainer({
    policy,
    train: questions(3),
    evaluation: questions(4).slice(3),
    promptTemplate: shortTemplate,
    promptsPerStep: 2,
    numGenerations: 2,
    maxCompletionLength: 4,
    maxSteps: 1,
    answerReward: 'majorityVote',
    estimator: 'gae',
    searchSchedule: 'real',
    search: selfProvider,
  })
  const record = await trainer.run()
  trainer.dispose()
  await policy.dispose()
  for (const [name, value] of Object.entries(record!)) {
    const isAbout = new RegExp(`^\\|.*\`${name}[\`.]`)
    const lines = document.split('\n').filter((line) => isAbout.test(line))
    t.true(lines.length > 0, name)
    if (['rewardParts', 'evaluation'].includes(name) || typeof value !== 'object') continue
    for (const part of Object.keys(value as object))
      t.regex(lines.join('\n'), new RegExp(`\\.${part}\``), `${name}.${part}`)
  }
})
