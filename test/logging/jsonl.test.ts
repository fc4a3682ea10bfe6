import { appendFile, mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import test from 'ava'
import { JsonlWriter, readJsonl } from '../../lib/logging/jsonl.ts'

async function file(t: { teardown(fn: () => Promise<void>): void }): Promise<string> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'ssrl-jsonl-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  return path.join(directory, 'records.jsonl')
}

test('records come back in the order in which they were appended', async (t) => {
  const writer = new JsonlWriter(await file(t))
  await writer.append({ step: 1 }, { step: 2, text: 'a\nb' })
  await writer.append({ step: 3 })
  t.deepEqual(await readJsonl(writer.path), [{ step: 1 }, { step: 2, text: 'a\nb' }, { step: 3 }])
})

test('a last line that was cut off by a crash is left out', async (t) => {
  const writer = new JsonlWriter(await file(t))
  await writer.append({ step: 1 })
  await appendFile(writer.path, '{"step": 2, "rew')
  t.deepEqual(await readJsonl(writer.path), [{ step: 1 }])
})

test('a line that is not JSON is ERR_DATASET with its number', async (t) => {
  const path = await file(t)
  await appendFile(path, '{"step": 1}\nnonsense\n{"step": 3}\n')
  await t.throwsAsync(readJsonl(path), { code: 'ERR_DATASET', message: /line 2/ })
})

test('a file that cannot be written is ERR_IO', async (t) => {
  await t.throwsAsync(new JsonlWriter('/dev/full').append({ step: 1 }), { code: 'ERR_IO' })
})
