import { readFile } from 'node:fs/promises'
import test from 'ava'
import { algorithms } from '../../lib/training/algorithms.ts'
import type { SettingName } from '../../lib/training/config.ts'
import { parseConfig } from '../../lib/training/config-parse.ts'
import { SSRLTrainer } from '../../lib/training/ssrl-trainer.ts'
import { questions, shortTemplate, tinyPolicy } from '../helpers/tiny-policy.ts'

const cases = Object.entries(algorithms).flatMap(([name, settings]) =>
  (['f32', 'bf16'] as const).map((dtype) => ({ name, settings, dtype })),
)

for (const { name, settings, dtype } of cases) {
  test(`${name}: its settings are accepted and what they say takes part in a step (${dtype})`, async (t) => {
    const config = parseConfig(settings, 'ssrl')
    for (const [key, value] of Object.entries(settings)) t.is(config[key as SettingName], value)
    const policy = await tinyPolicy({ dtype })
    const trainer = new SSRLTrainer({
      ...settings,
      policy,
      train: questions(20),
      promptTemplate: shortTemplate,
      promptsPerStep: 8,
      numGenerations: 2,
      maxCompletionLength: 6,
      maxSteps: 1,
      learningRate: 1e-3,
      // Trajectories differ, so that there is something to learn from.
      rewards: (all) => all.map((_, index) => index % 2),
    })
    const record = (await trainer.run())!
    trainer.dispose()
    await policy.dispose()
    t.is(record.mismatch, 0)
    t.true(record.gradNorm > 0)
    t.is(record.critic !== undefined, name === 'ppo')
    t.is(record.ratio.max > 1, config.numMiniBatches > 1)
  })
}

test('docs/method.md has a row for every algorithm, with its source', async (t) => {
  const document = await readFile(new URL('../../docs/method.md', import.meta.url), 'utf8')
  const titles: Record<string, string> = {
    grpo: 'GRPO',
    dr_grpo: 'Dr. GRPO',
    bnpo: 'BNPO',
    rloo: 'RLOO',
    reinforce_plus_plus: 'REINFORCE++',
    reinforce_plus_plus_baseline: 'REINFORCE++, group baseline',
    dapo: 'DAPO',
    kl_cov: 'KL-Cov',
    gspo: 'GSPO',
    ppo: 'PPO',
    ttrl: 'TTRL',
  }
  for (const name of Object.keys(algorithms)) {
    if (name === 'ssrl') continue
    const row = document.split('\n').find((line) => line.startsWith(`| ${titles[name]} |`))
    t.truthy(row, name)
    t.is(row!.replaceAll('\\|', '').split('|').length, 7, name)
  }
})
