import { mkdtemp, readdir, readFile, readlink, rm, truncate, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import test from 'ava'
import {
  CheckpointFolder,
  findCheckpoint,
  readCheckpoint,
  writeCheckpoint,
} from '../../lib/training/checkpoint.ts'

async function folder(t: { teardown(fn: () => Promise<void>): void }): Promise<string> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'ssrl-checkpoint-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  return directory
}

const text = (content: string) => (file: string) => writeFile(file, content)

test('a checkpoint gives back the state that was written', async (t) => {
  const directory = path.join(await folder(t), 'step-000003')
  await writeCheckpoint(directory, { weights: text('abc') }, { step: 3 })
  t.deepEqual(await readCheckpoint(directory), { step: 3 })
  t.is(await readFile(path.join(directory, 'weights'), 'utf8'), 'abc')
})

test('nothing but the checkpoint is left beside it', async (t) => {
  const parent = await folder(t)
  await writeCheckpoint(path.join(parent, 'a'), { weights: text('abc') }, {})
  await writeCheckpoint(path.join(parent, 'a'), { weights: text('abd') }, {})
  t.deepEqual(await readdir(parent), ['a'])
  t.is(await readFile(path.join(parent, 'a', 'weights'), 'utf8'), 'abd')
})

test('a full device is ERR_CHECKPOINT, and the checkpoint before it stays', async (t) => {
  const parent = await folder(t)
  const directory = path.join(parent, 'a')
  await writeCheckpoint(directory, { weights: text('old') }, { step: 1 })
  const full = () => writeFile('/dev/full', 'x')
  const error = await t.throwsAsync(
    writeCheckpoint(directory, { weights: text('new'), more: full }, { step: 2 }),
    {
      code: 'ERR_CHECKPOINT',
      message: /no space left/i,
    },
  )
  t.truthy(error.cause)
  t.deepEqual(await readCheckpoint(directory), { step: 1 })
  t.deepEqual(await readdir(parent), ['a'])
})

const damages: [string, (directory: string) => Promise<void>, RegExp][] = [
  ['a cut file', (d) => truncate(path.join(d, 'weights'), 1), /weights has 1 bytes instead of 3/],
  ['a changed byte', (d) => writeFile(path.join(d, 'weights'), 'abX'), /weights does not match its checksum/],
  ['a missing file', (d) => rm(path.join(d, 'weights')), /weights is missing/],
  ['a state that is not JSON', (d) => writeFile(path.join(d, 'state.json'), '{'), /state.json can't be read/],
  ['another format', (d) => writeFile(path.join(d, 'state.json'), '{"format":9}'), /format is 9/],
  ['no state', (d) => rm(path.join(d, 'state.json')), /no state.json/],
]

for (const [title, damage, message] of damages) {
  test(`refused as damaged: ${title}`, async (t) => {
    const directory = path.join(await folder(t), 'a')
    await writeCheckpoint(directory, { weights: text('abc') }, {})
    await damage(directory)
    await t.throwsAsync(readCheckpoint(directory), { code: 'ERR_CHECKPOINT', message })
  })
}

test('the last few checkpoints are kept, and the best', async (t) => {
  const run = await folder(t)
  const checkpoints = new CheckpointFolder(path.join(run, 'checkpoints'))
  for (const step of [1, 2, 3, 10])
    await writeCheckpoint(checkpoints.pathOf(step), { weights: text('x') }, { step })
  await checkpoints.markBest(1)
  await checkpoints.prune(2, 1)
  t.deepEqual(await checkpoints.steps(), [1, 3, 10])
  t.is(await readlink(path.join(run, 'checkpoints', 'best')), 'step-000001')
  t.is(await findCheckpoint(run), checkpoints.pathOf(10))
})

test('a folder without checkpoints is refused', async (t) => {
  await t.throwsAsync(findCheckpoint(await folder(t)), { code: 'ERR_CHECKPOINT', message: /found none/ })
})
