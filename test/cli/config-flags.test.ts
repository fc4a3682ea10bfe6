import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import test from 'ava'
import { Command } from 'commander'
import { addConfigOptions, flagOf, givenSettings } from '../../lib/cli/config-flags.ts'
import { defaultOf, lookup, settingNames, type TrainerName } from '../../lib/training/config.ts'
import { parseConfig } from '../../lib/training/config-parse.ts'

async function parse(words: string[], trainer: TrainerName = 'ssrl') {
  const command = addConfigOptions(new Command('test'), trainer).exitOverride()
  command.configureOutput({ writeErr: () => {} }).action(() => {})
  await command.parseAsync(words, { from: 'user' })
  return givenSettings(command, trainer)
}

test("without flags no setting is given, so that every default is the table's", async (t) => {
  t.deepEqual(await parse([]), {})
  t.deepEqual(await parse([], 'sft'), {})
})

test('every setting can be given as a flag, and its default spelt so is accepted', async (t) => {
  for (const trainer of ['ssrl', 'sft'] as const) {
    for (const name of settingNames(trainer)) {
      const value = defaultOf(name, trainer)
      if (typeof value === 'boolean') {
        const flag = value ? flagOf(name).replace('--', '--no-') : flagOf(name)
        t.deepEqual(await parse([flag], trainer), { [name]: !value })
      } else {
        const word = value === null ? 'none' : String(value)
        const given = await parse([flagOf(name), word], trainer)
        t.deepEqual(given, { [name]: value }, name)
        t.true(lookup(name).kind.schema.safeParse(value).success)
      }
    }
  }
})

test('flags win over the file, and both are kept apart from defaults', async (t) => {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'ssrl-config-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  const file = path.join(directory, 'config.json')
  await writeFile(file, '{"learningRate": 1e-5, "numGenerations": 4}')
  const given = await parse(['--config', file, '--num-generations', '6', '--information-mask', '0.5'])
  t.deepEqual(given, { learningRate: 1e-5, numGenerations: 6, informationMask: { weight: 0.5 } })
  await writeFile(file, '[1]')
  await t.throwsAsync(parse(['--config', file]), { code: 'ERR_INVALID_CONFIG', message: /no object/ })
  await t.throwsAsync(parse(['--config', `${file}.missing`]), { code: 'ERR_INVALID_CONFIG' })
})

test('a word that is no number reaches the check as it is', async (t) => {
  const given = await parse(['--learning-rate', 'fast'])
  t.throws(() => parseConfig(given, 'ssrl'), {
    code: 'ERR_INVALID_CONFIG',
    message: /learningRate but received "fast"/,
  })
})

test('an unknown flag is refused with a suggestion', async (t) => {
  const error = await t.throwsAsync(parse(['--num-generation', '4']))
  t.regex(error.message, /num-generations/)
})
