import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import test from 'ava'
import { Policy } from '../../lib/policy/policy.ts'
import { mostTelling, prepareWorld, runMainJob, worldSettings } from '../../lib/quickstart/main-job.ts'

test('the main job measures, trains, measures again and saves a policy that loads', async (t) => {
  const output = await mkdtemp(path.join(os.tmpdir(), 'ssrl-quickstart-'))
  t.teardown(() => rm(output, { recursive: true, force: true }))
  const losses: number[] = []
  const job = await prepareWorld(0, { steps: 6, onStep: (_step, _steps, loss) => losses.push(loss) })
  t.teardown(() => job.policy.dispose())
  t.true(losses.at(-1)! < losses[0]!, `loss ${losses.join(', ')}`)

  const phases: string[] = []
  const small = {
    ...job,
    heldOut: job.heldOut.slice(0, 6),
    settings: {
      ...worldSettings,
      maxSteps: 2,
      promptsPerStep: 2,
      numGenerations: 3,
      maxCompletionLength: 24,
    },
  }
  const report = await runMainJob(small, {
    output,
    seed: 0,
    sampledQuestions: 2,
    samples: 4,
    onPhase: (phase) => phases.push(phase),
  })
  t.deepEqual(phases, ['before', 'train', 'after', 'save'])
  t.is(report.records.length, 2)
  t.true(report.records.every(({ mismatch }) => mismatch === 0))
  t.is(report.before.greedy.length, 6)
  t.deepEqual(Object.keys(report.after.pass).map(Number), [1, 2, 4])
  t.true(mostTelling(report.before, report.after) < 6)
  t.true(existsSync(path.join(output, 'policy', 'model.safetensors')))

  const saved = await Policy.load(report.saved, { dtype: 'f32' })
  t.teardown(() => saved.dispose())
  const greedy = { temperature: 0, maxNewTokens: 24, stop: ['</answer>'] }
  const request = [{ prompt: `Question: ${small.heldOut[0]!.question}\n` }]
  const [now] = await job.policy.generate(request, greedy)
  const [then] = await saved.generate(request, greedy)
  t.deepEqual(then!.tokens, now!.tokens)
})

test('a job without held-out questions is refused', async (t) => {
  const job = await prepareWorld(1, { steps: 1, demonstrations: 2, factRows: 1 })
  t.teardown(() => job.policy.dispose())
  await t.throwsAsync(runMainJob({ ...job, heldOut: [] }, { output: 'never-written', seed: 0 }), {
    code: 'ERR_DATASET',
  })
})
