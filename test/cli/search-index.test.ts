import { spawn } from 'node:child_process'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { execa } from 'execa'
import { LocalIndex } from '../../lib/search/local-index.ts'
import { openDatabase } from '../../lib/search/sqlite.ts'
import { testWithSqlite } from '../helpers/sqlite.ts'

const main = ['--import=tsx', 'lib/cli/main.ts']
const folder = await mkdtemp(path.join(os.tmpdir(), 'ssrl-cli-index-'))
const at = (...parts: string[]) => path.join(folder, ...parts)
const ssrl = (...args: string[]) =>
  execa('node', [...main, ...args], { reject: false, env: { NO_COLOR: '1' } })

const lines = [
  { id: 1, title: 'Ada Lund', contents: 'Ada Lund was born in Rome.' },
  { id: 2, contents: '"Rome"\nRome is the capital of Italy.' },
  { id: 'x', contents: 'Bonn lies on the Rhine.' },
]
const corpus = at('corpus.jsonl')

test.before(() => writeFile(corpus, lines.map((line) => `${JSON.stringify(line)}\n`).join('')))
test.after.always(() => rm(folder, { recursive: true, force: true }))

testWithSqlite(
  'index makes a folder that a search opens, with progress on stderr and JSON on stdout',
  async (t) => {
    const { exitCode, stdout, stderr } = await ssrl('index', '--corpus', corpus, '--json')
    t.is(exitCode, 0, stderr)
    t.deepEqual(JSON.parse(stdout), { passages: 3, index: `${corpus}.index` })
    t.regex(stderr, /^megabyte 0\/0 · 3 passages$/m)
    t.regex(stderr, /indexed 3 passages into/)
    const index = await LocalIndex.open(`${corpus}.index`)
    t.like(index.search('Italy', 1)[0], { id: '2', title: 'Rome', text: 'Rome is the capital of Italy.' })
    index.close()
  },
)

testWithSqlite('a broken line is told with its number, and the index before stays', async (t) => {
  const output = at('kept')
  t.is((await ssrl('index', '--corpus', corpus, '--output', output)).exitCode, 0)
  for (const [name, line] of Object.entries({
    json: '{"id": 4,',
    shape: '{"id": 4}',
    text: '{"id":4,"contents":7}',
  })) {
    const broken = at(`${name}.jsonl`)
    await writeFile(broken, `${JSON.stringify(lines[0])}\n${line}\n`)
    const { exitCode, stderr } = await ssrl('index', '--corpus', broken, '--output', output)
    t.is(exitCode, 1)
    t.true(stderr.includes('error ERR_DATASET') && stderr.includes(`${broken}:2`), stderr)
  }
  t.deepEqual(await readdir(output), ['index.sqlite'])
  t.is((await LocalIndex.open(output)).size, 3)
})

testWithSqlite('no corpus, an empty one, and a flag that is none end with a message', async (t) => {
  const missing = await ssrl('index', '--corpus', at('none.jsonl'))
  t.is(missing.exitCode, 1)
  t.regex(missing.stderr, /ERR_DATASET: Cannot read .*none\.jsonl/)
  await writeFile(at('empty.jsonl'), '\n\n')
  t.regex(
    (await ssrl('index', '--corpus', at('empty.jsonl'))).stderr,
    /ERR_DATASET: Expected at least one passage/,
  )
  t.is((await ssrl('index')).exitCode, 2)
})

/** A running `ssrl retrieve`, with its address. */
async function server(t: ExecutionContext, ...args: string[]) {
  const child = spawn('node', [...main, 'retrieve', '--port', '0', ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  const ended = new Promise<number | null>((resolve) => {
    child.once('close', resolve)
  })
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout.once('data', (data) => resolve(String(data).trim()))
    child.once('close', (code) => reject(new Error(`it ended with ${code}`)))
  })
  const stop = () => {
    child.kill('SIGINT')
    return ended
  }
  return { url, stop }
}

const post = (url: string, body: unknown) =>
  fetch(url, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body) })

testWithSqlite('retrieve serves a corpus to this machine alone, and ends at Ctrl-C', async (t) => {
  const { url, stop } = await server(t, '--corpus', corpus, '--max-body-bytes', '2000')
  t.regex(url, /^http:\/\/127\.0\.0\.1:\d+\/retrieve$/)
  const response = await post(url, {
    queries: ['Where was Ada born?', 'zebra'],
    topk: 2,
    return_scores: true,
  })
  const { result } = (await response.json()) as { result: { document: object; score: number }[][] }
  t.deepEqual(
    result.map((found) => found.length),
    [1, 0],
  )
  t.deepEqual(result[0]![0]!.document, { id: '1', contents: '"Ada Lund"\nAda Lund was born in Rome.' })
  t.is(typeof result[0]![0]!.score, 'number')
  const refused: [unknown, number, RegExp][] = [
    ['{"queries": [', 400, /Expected JSON/],
    ['[]', 422, /Expected \{ queries/],
    [{ queries: 'Ada' }, 422, /queries: .*array/],
    [{ queries: [7] }, 422, /queries\.0: .*string/],
    [{ queries: [] }, 422, /queries/],
    [{ queries: ['a'], topk: 'three' }, 422, /topk/],
    [{ queries: ['x'.repeat(3000)] }, 413, /at most 2000 bytes/],
  ]
  for (const [body, status, detail] of refused) {
    const answer = await post(url, body)
    t.is(answer.status, status, JSON.stringify(body))
    t.regex(((await answer.json()) as { detail: string }).detail, detail)
  }
  t.is((await fetch(url)).status, 405)
  t.is((await post(url.replace('retrieve', 'search'), {})).status, 404)
  t.is(await stop(), 0)
})

testWithSqlite('retrieve serves an index; one of another version or none at all is told', async (t) => {
  const output = at('served')
  t.is((await ssrl('index', '--corpus', corpus, '--output', output)).exitCode, 0)
  const { url, stop } = await server(t, '--corpus', output, '--top-k', '1')
  const response = await post(url, { queries: ['Rome'] })
  t.is(((await response.json()) as { result: object[][] }).result[0]!.length, 1)
  const port = new URL(url).port
  const second = await ssrl('retrieve', '--corpus', output, '--port', port)
  t.is(second.exitCode, 1)
  t.regex(second.stderr, /ERR_NETWORK: Can't listen on 127\.0\.0\.1/)
  t.is(await stop(), 0)
  const database = await openDatabase(path.join(output, 'index.sqlite'))
  database.pragma('user_version = 99')
  database.close()
  const old = await ssrl('retrieve', '--corpus', output)
  t.is(old.exitCode, 1)
  t.regex(old.stderr, /ERR_SEARCH: Expected an index of version \d+ .* found version 99: build it again/)
  t.regex((await ssrl('retrieve', '--corpus', at('nowhere'))).stderr, /ERR_DATASET: Cannot read/)
  t.regex((await ssrl('retrieve', '--corpus', folder)).stderr, /ERR_SEARCH: Expected an index/)
})

test('help says what a corpus is and who is served', async (t) => {
  t.regex((await ssrl('index', '--help')).stdout, /--corpus <file>[\s\S]*--output <folder>/)
  t.regex((await ssrl('retrieve', '--help')).stdout, /--host <address>[\s\S]*127\.0\.0\.1/)
})
