import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import {
  parseGenerationConfig,
  readGenerationConfig,
  writeGenerationConfig,
} from '../../lib/policy/generation-config.ts'

test('what was read is written again, other fields included', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'ssrl-generation-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const json = {
    temperature: 0.6,
    do_sample: true,
    bos_token_id: 1,
    eos_token_id: [2, 7],
    pad_token_id: 0,
    stop_strings: ['</answer>'],
  }
  await writeGenerationConfig(directory, parseGenerationConfig(json))
  t.deepEqual(JSON.parse(readFileSync(join(directory, 'generation_config.json'), 'utf8')), json)
  t.deepEqual(await readGenerationConfig(directory), {
    bosTokenId: 1,
    eosTokenIds: [2, 7],
    padTokenId: 0,
    stopStrings: ['</answer>'],
    other: { temperature: 0.6, do_sample: true },
  })
})

test('a folder without the file has a config without content', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'ssrl-generation-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  t.deepEqual(await readGenerationConfig(directory), { eosTokenIds: [], stopStrings: [], other: {} })
})

test('one stop string may stand alone', (t) => {
  t.deepEqual(parseGenerationConfig({ stop_strings: 'x', eos_token_id: 3 }).stopStrings, ['x'])
  t.deepEqual(parseGenerationConfig({ stop_strings: null, eos_token_id: null }).eosTokenIds, [])
})

for (const [field, value] of Object.entries({
  eos_token_id: 'x',
  bos_token_id: -1,
  stop_strings: [3],
  pad_token_id: 1.5,
})) {
  test(`${field} of a wrong type is ERR_MODEL_FORMAT naming it`, (t) => {
    const error = t.throws(() => parseGenerationConfig({ [field]: value }), { code: 'ERR_MODEL_FORMAT' })
    t.true(error.message.includes(field))
  })
}
