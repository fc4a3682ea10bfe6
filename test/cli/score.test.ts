import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { execaNode } from 'execa'

let folder: string
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ssrl-score-cli-'))
  const rows = [
    { response: '<think>t</think><answer>x</answer>', golden_answers: ['x'] },
    { response: '<answer>y</answer>', golden_answers: ['x'] },
  ]
  await writeFile(join(folder, 'set.jsonl'), rows.map((row) => JSON.stringify(row)).join('\n'))
  await writeFile(join(folder, 'bad.jsonl'), 'no json')
})
test.after.always(() => rm(folder, { recursive: true }))

function ssrl(...args: string[]) {
  return execaNode('lib/cli/main.ts', ['score', ...args], { nodeOptions: ['--import=tsx'], reject: false })
}

test('score prints a table on stdout and the rule beside it', async (t) => {
  const { stdout, stderr, exitCode } = await ssrl('--data', join(folder, 'set.jsonl'))
  t.is(exitCode, 0, stderr)
  t.regex(stdout, /^set +2 +0\.500 \[0\.000, 1\.000\] +0\.500/m)
  t.regex(stdout, /Scoring: prediction/)
  t.is(stderr, '')
})

test('score --json prints the summary and --output writes it', async (t) => {
  const output = join(folder, 'out')
  const { stdout, exitCode } = await ssrl('-d', join(folder, 'set.jsonl'), '-o', output, '--json')
  t.is(exitCode, 0)
  t.deepEqual(JSON.parse(stdout), JSON.parse(await readFile(join(output, 'summary.json'), 'utf8')))
})

test('score of a bad line exits with 1 and names file and line', async (t) => {
  const { stderr, exitCode } = await ssrl('--data', join(folder, 'bad.jsonl'))
  t.is(exitCode, 1)
  t.regex(stderr, /ERR_DATASET.*bad\.jsonl:1:/)
})

test('score without --data exits with 2', async (t) => {
  t.is((await ssrl()).exitCode, 2)
})
