import { mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import type { Example } from '../../lib/data/examples.ts'
import { nativePolicyOf } from '../../lib/policy/native-handle.ts'
import type { Policy } from '../../lib/policy/policy.ts'
import { type SFTStepRecord, SFTTrainer, type SFTTrainerOptions } from '../../lib/training/sft-trainer.ts'
import { withoutTimes } from '../../lib/training/step-record.ts'
import { shortTemplate, tinyPolicy } from '../helpers/tiny-policy.ts'

function examples(count: number): Example[] {
  return Array.from({ length: count }, (_, index) => ({
    kind: 'completion' as const,
    line: index + 1,
    prompt: `Question: number ${index}?\n`,
    completion: `<think> ${'it is '.repeat(index % 3)}${index} </think><answer> ${index} </answer>`,
  }))
}

const settings = { batchSize: 4, maxSteps: 5, learningRate: 3e-3, promptTemplate: shortTemplate }

async function trainer(t: ExecutionContext, options: Partial<SFTTrainerOptions> = {}): Promise<SFTTrainer> {
  const policy = await tinyPolicy()
  const made = new SFTTrainer({ train: examples(12), ...settings, ...options, policy })
  t.teardown(() => {
    made.dispose()
    policy.dispose()
  })
  return made
}

async function collect(made: SFTTrainer): Promise<SFTStepRecord[]> {
  const records: SFTStepRecord[] = []
  for await (const record of made.train()) records.push(record)
  return records
}

async function weightsOf(policy: Policy): Promise<Float32Array[]> {
  const native = nativePolicyOf(policy)
  return Promise.all(native.parameters().map(({ name }) => native.readParameter(name)))
}

test('the loss falls, and the held-out loss with it', async (t) => {
  const made = await trainer(t, { evaluation: examples(4), maxSteps: 40, evaluateEvery: 20 })
  const before = await made.evaluate()
  const records = await collect(made)
  t.true(records.at(-1)!.loss < 0.5 * records[0]!.loss)
  t.true(records.at(-1)!.evaluation!.loss < 0.5 * before!.loss)
  t.is(made.best!.step, 40)
})

test('the first loss is the mean negative log-prob of the completion tokens', async (t) => {
  const made = await trainer(t, { maxSteps: 1, train: examples(4), evaluation: examples(4) })
  const expected = await made.evaluate()
  const [record] = await collect(made)
  t.true(Math.abs(record!.loss - expected!.loss) < 1e-5)
  t.is(record!.tokens.active, expected!.tokens)
})

test('how micro-batches are cut does not change the result: 1×4 equals 4×1', async (t) => {
  const options = { maxSteps: 2, adamEpsilon: 1e-3 }
  const [whole, single] = [await trainer(t, options), await trainer(t, { ...options, microBatchTokens: 1 })]
  const [a, b] = [await collect(whole), await collect(single)]
  for (const [index, record] of a.entries()) t.true(Math.abs(record.loss - b[index]!.loss) < 1e-6)
  const [left, right] = [await weightsOf(whole.policy), await weightsOf(single.policy)]
  for (const [index, values] of left.entries()) {
    for (const [at, value] of values.entries()) t.true(Math.abs(value - right[index]![at]!) < 1e-6)
  }
})

test('packing changes how many examples a step has, and what each row holds stays apart', async (t) => {
  const packed = await trainer(t, {
    packing: true,
    packedLength: 128,
    batchSize: 1,
    maxSteps: 1,
    shuffle: false,
  })
  const [record] = await collect(packed)
  t.true(record!.sequences > 1)
  t.true(record!.tokens.all <= 128)
  const plain = await trainer(t, { batchSize: record!.sequences, maxSteps: 1, shuffle: false })
  const [same] = await collect(plain)
  t.deepEqual(withoutTimes(same!), withoutTimes(record!))
})

const packings = { 'in packed rows': { packing: true, packedLength: 64 }, unpacked: { packing: false } }
for (const [title, packing] of Object.entries(packings)) {
  test(`a run that is resumed after any step has the records and weights of one that never stopped, ${title}`, async (t) => {
    const outputDirectory = await mkdtemp(path.join(os.tmpdir(), 'ssrl-sft-'))
    t.teardown(() => rm(outputDirectory, { recursive: true, force: true }))
    const made = await trainer(t, {
      outputDirectory,
      saveEvery: 1,
      keep: 10,
      evaluation: examples(3),
      evaluateEvery: 2,
      ...packing,
    })
    const records = (await collect(made)).map(withoutTimes)
    const weights = await weightsOf(made.policy)
    for (let step = 1; step < settings.maxSteps; step++) {
      const resumed = await SFTTrainer.resume(
        path.join(outputDirectory, 'checkpoints', `step-00000${step}`),
        {
          outputDirectory: path.join(outputDirectory, `again-${step}`),
        },
      )
      t.deepEqual((await collect(resumed)).map(withoutTimes), records.slice(step))
      t.deepEqual(await weightsOf(resumed.policy), weights)
      resumed.dispose()
      resumed.policy.dispose()
    }
  })
}

test('an SSRL checkpoint is not resumed as fine-tuning, and other examples are refused', async (t) => {
  const outputDirectory = await mkdtemp(path.join(os.tmpdir(), 'ssrl-sft-'))
  t.teardown(() => rm(outputDirectory, { recursive: true, force: true }))
  await collect(await trainer(t, { outputDirectory, maxSteps: 1 }))
  await t.throwsAsync(SFTTrainer.resume(outputDirectory, { train: examples(3) }), {
    code: 'ERR_CHECKPOINT',
    message: /examples of train are others/,
  })
  const { SSRLTrainer } = await import('../../lib/training/ssrl-trainer.ts')
  await t.throwsAsync(SSRLTrainer.resume(outputDirectory), {
    code: 'ERR_CHECKPOINT',
    message: /Expected a checkpoint of ssrl.*one of sft/,
  })
})
