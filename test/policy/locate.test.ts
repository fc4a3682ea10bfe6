import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import test from 'ava'
import { locatePolicy } from '../../lib/policy/locate.ts'
import { parseHubId } from '../../lib/policy/model-files.ts'

/** An empty folder with these files, removed when the test ends. */
function folder(t: { teardown: (fn: () => void) => void }, files: Record<string, string> = {}) {
  const directory = mkdtempSync(join(tmpdir(), 'ssrl-locate-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text)
  return directory
}

const index = (...names: string[]) =>
  JSON.stringify({ weight_map: Object.fromEntries(names.map((name, i) => [i, name])) })

test('a folder is found by its model.safetensors', async (t) => {
  const directory = folder(t, { 'config.json': '{}', 'model.safetensors': '', 'other.gguf': '' })
  const weightFiles = [join(directory, 'model.safetensors')]
  t.deepEqual(await locatePolicy(directory), { format: 'safetensors', directory, weightFiles })
})

test('a folder is found by its index, each shard once', async (t) => {
  const shards = index('b.safetensors', 'a.safetensors', 'b.safetensors')
  const names = { 'config.json': '{}', 'a.safetensors': '', 'b.safetensors': '' }
  const directory = folder(t, { ...names, 'model.safetensors.index.json': shards })
  const { weightFiles } = await locatePolicy(directory)
  t.deepEqual(
    weightFiles.map((path) => basename(path)),
    ['a.safetensors', 'b.safetensors'],
  )
})

test('a folder without safetensors is found by its only .gguf file', async (t) => {
  const directory = folder(t, { 'config.json': '{}', 'model-q8.gguf': '' })
  const weightFiles = [join(directory, 'model-q8.gguf')]
  t.deepEqual(await locatePolicy(directory), { format: 'gguf', directory, weightFiles })
})

test('a .gguf file is found, and its folder is where a tokenizer.json may lie', async (t) => {
  const directory = folder(t, { 'a.gguf': '', 'b.gguf': '' })
  const file = join(directory, 'b.gguf')
  t.deepEqual(await locatePolicy(file), { format: 'gguf', directory, weightFiles: [file] })
})

test.serial('an existing path wins over a hub id', async (t) => {
  const directory = folder(t)
  const here = process.cwd()
  t.teardown(() => process.chdir(here))
  process.chdir(directory)
  mkdirSync(join('org', 'name'), { recursive: true })
  writeFileSync(join('org', 'name', 'config.json'), '{}')
  writeFileSync(join('org', 'name', 'model.safetensors'), '')
  t.is((await locatePolicy('org/name')).directory, join(process.cwd(), 'org', 'name'))
})

const refused: [
  title: string,
  files: Record<string, string>,
  source: string,
  code: string,
  message: RegExp,
][] = [
  ['nothing at a path', {}, 'missing/deep/path', 'ERR_IO', /No such file or folder.*org\/name/],
  ['no .gguf file of that name', {}, 'missing.gguf', 'ERR_IO', /missing\.gguf/],
  ['an empty folder', {}, '', 'ERR_MODEL_FORMAT', /holds no weights/],
  ['weights without config.json', { 'model.safetensors': '' }, '', 'ERR_MODEL_FORMAT', /config\.json/],
  ['several .gguf files', { 'a.gguf': '', 'b.gguf': '' }, '', 'ERR_MODEL_FORMAT', /a\.gguf, b\.gguf/],
  ['a file that is no .gguf', { 'a.bin': '' }, 'a.bin', 'ERR_MODEL_FORMAT', /\.gguf file or a folder/],
  [
    'a missing shard',
    { 'config.json': '{}', 'model.safetensors.index.json': index('a.safetensors') },
    '',
    'ERR_MODEL_FORMAT',
    /lacks a\.safetensors/,
  ],
  ['an index that is no JSON', { 'model.safetensors.index.json': '{' }, '', 'ERR_MODEL_FORMAT', /not JSON/],
  [
    'an index without shards',
    { 'model.safetensors.index.json': '{"weight_map":{}}' },
    '',
    'ERR_MODEL_FORMAT',
    /weight_map/,
  ],
  [
    'a shard outside',
    { 'model.safetensors.index.json': index('../a.safetensors') },
    '',
    'ERR_MODEL_FORMAT',
    /\.\.\/a/,
  ],
]
for (const [title, files, source, code, message] of refused) {
  test(`${title} is ${code}`, async (t) => {
    await t.throwsAsync(locatePolicy(join(folder(t, files), source)), { code, message })
  })
}

test('no string at all is ERR_INVALID_ARG', async (t) => {
  for (const source of ['', undefined, 7]) {
    await t.throwsAsync(locatePolicy(source as string), { code: 'ERR_INVALID_ARG' })
  }
})

test('hub ids are org/name, with a .gguf file where one is meant', (t) => {
  t.deepEqual(parseHubId('org/na.me-1'), { repository: 'org/na.me-1' })
  t.deepEqual(parseHubId('org/name:sub/a.gguf'), { repository: 'org/name', file: 'sub/a.gguf' })
  for (const text of ['name', 'a/b/c', './a', '/a/b', 'a/..', 'a/b:../c.gguf', 'a/b:c.bin', 'a b/c', '']) {
    t.is(parseHubId(text), null, text)
  }
})
